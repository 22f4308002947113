import { z } from 'zod';
import type { Rule } from './words.ts';

export type Meta = Readonly<Record<string, unknown>>;

/** A text that keeps a rule, with what editors show of it. */
export function text(rule: Rule, description: string, meta: Meta = {}): z.ZodString {
  return z
    .string()
    .superRefine((value, context) => {
      const wrong = rule(value);
      if (wrong === undefined) return;
      context.addIssue({ code: 'custom', message: wrong.message, params: { hint: wrong.hint } });
    })
    .meta({ description, ...meta });
}

/** What YAML calls a number and we take as written: editors must not complain about `version: 1.10`. */
export const AS_WRITTEN: Meta = { type: ['string', 'number'] };
