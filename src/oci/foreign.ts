import type { Descriptor } from '../core/descriptor.ts';
import { type Fault, fault } from '../core/errors.ts';
import { isForeignLayer } from '../core/media.ts';
import { withoutQuery } from '../io/redirect.ts';
import type { ParsedManifest } from './manifest.ts';

/** Layers that a message names. */
const SHOWN = 5;

/** The layers of a manifest that registries need not hold (image-spec layer.md, "Non-Distributable Layers"). */
export function foreignLayersOf(parsed: ParsedManifest): readonly Descriptor[] {
  return parsed.kind === 'manifest' ? parsed.layers.filter((l) => isForeignLayer(l.mediaType)) : [];
}

function layerText({ digest, size, urls = [] }: Descriptor): string {
  const where = urls.length === 0 ? 'no address' : urls.map(withoutQuery).join(' or ');
  return `${digest} (${size} bytes, ${where})`;
}

/** What is said about foreign layers that an image is carried without. */
export function foreignWarning(name: string, layers: readonly Descriptor[]): Fault {
  const shown = layers.slice(0, SHOWN).map(layerText).join('; ');
  const more = layers.length > SHOWN ? `; and ${layers.length - SHOWN} more` : '';
  const one = layers.length === 1;
  return fault(
    'IMAGE_FOREIGN_LAYERS',
    `${name}: ${layers.length} foreign ${one ? 'layer is' : 'layers are'} left out: ${shown}${more}`,
    {
      hint: 'who runs the image must reach these addresses; to carry the layers write {ref: …, foreignLayers: true}, or run `sealift lock --foreign-layers`',
      details: {
        name,
        layers: layers.map(({ digest, size, urls }) => ({
          digest,
          size,
          urls: (urls ?? []).map(withoutQuery),
        })),
      },
    },
  );
}
