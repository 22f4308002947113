import { describe, expect, it } from 'vitest';
import { parseWheelPlatform } from '../../src/core/python-target.ts';
import { clashingPins, markerFor, unitePins } from '../../src/python/pins.ts';

const target = (python: string, platform: string) => ({ python, platform: parseWheelPlatform(platform) });
const TARGETS = ['linux/amd64', 'linux/arm64'].flatMap((p) =>
  ['3.10', '3.11', '3.12'].map((v) => target(v, p)),
);
const some = (is: (t: (typeof TARGETS)[number]) => boolean) => markerFor(TARGETS.filter(is), TARGETS);

describe('the marker of a pin', () => {
  it('is none where every target wants it', () => {
    expect(some(() => true)).toBeUndefined();
  });

  it('names the Pythons, the machines, or both', () => {
    expect(some((t) => t.python === '3.10')).toBe('python_version == "3.10"');
    expect(some((t) => t.python !== '3.12')).toBe('python_version == "3.10" or python_version == "3.11"');
    expect(some((t) => t.platform.machine === 'aarch64')).toBe('platform_machine == "aarch64"');
    expect(some((t) => t.platform.machine === 'aarch64' && t.python !== '3.10')).toBe(
      'platform_machine == "aarch64" and (python_version == "3.11" or python_version == "3.12")',
    );
    expect(some((t) => t.platform.machine === 'aarch64' || t.python === '3.10')).toBe(
      'platform_machine == "x86_64" and python_version == "3.10" or platform_machine == "aarch64"',
    );
  });

  it('cannot tell C libraries apart', () => {
    const all = [target('3.11', 'linux/amd64'), target('3.11', 'musllinux_1_2_x86_64')];
    expect(markerFor(all.slice(0, 1), all)).toBeUndefined();
  });
});

describe('the pins of many targets', () => {
  it('are united by name and version', () => {
    const [a, b] = [
      { name: 'a', version: '1' },
      { name: 'a', version: '2' },
    ] as const;
    const targets = [target('3.10', 'linux/amd64'), target('3.11', 'linux/amd64')];
    const united = unitePins([[a], [b, { name: 'c', version: '1' }]], targets);
    expect(united.map(({ pin, targets: t }) => [pin.name, pin.version, t.map((x) => x.python)])).toEqual([
      ['a', '1', ['3.10']],
      ['a', '2', ['3.11']],
      ['c', '1', ['3.11']],
    ]);
    expect(clashingPins(united)).toEqual([]);
  });

  it('clash where only the C library decides between two versions', () => {
    const targets = [target('3.11', 'manylinux_2_17_x86_64'), target('3.11', 'musllinux_1_2_x86_64')];
    const pins = ['1', '2'].map((version) => [{ name: 'a', version }]);
    expect(clashingPins(unitePins(pins, targets))).toEqual([
      { name: 'a', versions: ['1', '2'], environment: '3.11 x86_64' },
    ]);
  });
});
