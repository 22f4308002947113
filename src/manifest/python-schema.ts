import { z } from 'zod';
import { AS_WRITTEN, text } from './text.ts';
import { isIndexUrl, isLocalPath, isPythonText, isRequirementText, isWheelPlatformText } from './words.ts';

/** `python` of sealift.yaml. */
export const pythonObject = z
  .strictObject({
    requirements: z
      .array(text(isLocalPath, 'A requirements file, relative to the manifest'))
      .nullish()
      .meta({ description: 'Requirements files: what is installed at the site' }),
    constraints: z
      .array(text(isLocalPath, 'A constraints file, relative to the manifest'))
      .nullish()
      .meta({ description: 'Constraints files: versions of what is installed for other reasons' }),
    packages: z
      .array(text(isRequirementText, 'A requirement, such as requests>=2.31'))
      .nullish()
      .meta({ description: 'Requirements beside those in files' }),
    pythons: z
      .array(text(isPythonText, 'A version of Python, such as 3.11', AS_WRITTEN))
      .min(1)
      .meta({ description: 'Versions of CPython at the site' }),
    platforms: z
      .array(text(isWheelPlatformText, 'linux/amd64, linux/arm64, or the platform tag of a wheel'))
      .min(1)
      .optional()
      .meta({
        description:
          'Platforms at the site; linux/amd64 means glibc 2.28 (manylinux_2_28_x86_64). Default linux/amd64',
      }),
    indexes: z
      .array(text(isIndexUrl, 'Address of a simple index', { format: 'uri' }))
      .nullish()
      .meta({
        description:
          'Simple indexes, the first that has a project decides; default: what the resolver is configured with',
      }),
    sdists: z.boolean().optional().meta({
      description:
        'Carry a source archive where no wheel fits; its own code then runs while it is resolved. Default false',
    }),
    resolver: z
      .enum(['uv', 'pip'], { error: 'expected uv or pip' })
      .optional()
      .meta({ description: 'The program that resolves; default uv where it is there, else pip' }),
  })
  .superRefine((python, context) => {
    if ((python.requirements?.length ?? 0) + (python.packages?.length ?? 0) > 0) return;
    context.addIssue({
      code: 'custom',
      message: 'no requirements',
      params: { hint: 'name a file under requirements, or projects under packages' },
    });
  });
