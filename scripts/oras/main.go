// A small client on the ORAS library, for the tests: it does what `oras pull`, `oras copy --to-oci-layout` and `oras push`
// do, over plain HTTP, and prints the digest of what was copied.
//
//	oras pull NAME FOLDER                        files, by the titles of the layers
//	oras copy NAME FOLDER                        everything below the name, into an OCI layout
//	oras push NAME ARTIFACT_TYPE MEDIA_TYPE FILE…  files of the working directory
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
)

func main() {
	digest, err := run(context.Background(), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "oras:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

func run(ctx context.Context, args []string) (string, error) {
	if len(args) < 3 {
		return "", errors.New("usage: oras pull|copy NAME FOLDER, oras push NAME ARTIFACT_TYPE MEDIA_TYPE FILE…")
	}
	repository, err := remote.NewRepository(args[1])
	if err != nil {
		return "", err
	}
	repository.PlainHTTP = true
	name := repository.Reference.Reference
	var copied v1.Descriptor
	switch args[0] {
	case "pull":
		var folder *file.Store
		if folder, err = file.New(args[2]); err != nil {
			return "", err
		}
		defer folder.Close()
		copied, err = oras.Copy(ctx, repository, name, folder, "", oras.DefaultCopyOptions)
	case "copy":
		var layout *oci.Store
		if layout, err = oci.New(args[2]); err != nil {
			return "", err
		}
		copied, err = oras.Copy(ctx, repository, name, layout, "", oras.DefaultCopyOptions)
	case "push":
		copied, err = push(ctx, repository, args[2:])
	default:
		err = fmt.Errorf("no such command: %s", args[0])
	}
	return string(copied.Digest), err
}

func push(ctx context.Context, repository *remote.Repository, args []string) (v1.Descriptor, error) {
	folder, err := file.New(".")
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer folder.Close()
	options := oras.PackManifestOptions{}
	for _, path := range args[2:] {
		layer, err := folder.Add(ctx, path, args[1], path)
		if err != nil {
			return v1.Descriptor{}, err
		}
		options.Layers = append(options.Layers, layer)
	}
	manifest, err := oras.PackManifest(ctx, folder, oras.PackManifestVersion1_1, args[0], options)
	if err != nil {
		return v1.Descriptor{}, err
	}
	name := repository.Reference.Reference
	if err := folder.Tag(ctx, manifest, name); err != nil {
		return v1.Descriptor{}, err
	}
	return oras.Copy(ctx, folder, name, repository, name, oras.DefaultCopyOptions)
}
