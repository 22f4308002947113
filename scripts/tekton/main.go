// Checks Tekton's resources as its admission webhook does, for the tests: unknown fields, defaults, then Tekton's own
// validation. Prints one line for each resource.
//
//	tekton-check FILE
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	v1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	"sigs.k8s.io/yaml"
)

type resource interface {
	SetDefaults(context.Context)
	Validate(context.Context) *apis.FieldError
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tekton-check:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: tekton-check FILE")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		if err := check(document); err != nil {
			return err
		}
	}
	return nil
}

func check(document []byte) error {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(document, &kind); err != nil {
		return err
	}
	var one resource
	switch {
	case kind.APIVersion != "tekton.dev/v1":
		return fmt.Errorf("apiVersion %q", kind.APIVersion)
	case kind.Kind == "Task":
		one = &v1.Task{}
	case kind.Kind == "Pipeline":
		one = &v1.Pipeline{}
	default:
		return fmt.Errorf("kind %q", kind.Kind)
	}
	if err := yaml.UnmarshalStrict(document, one); err != nil {
		return err
	}
	ctx := context.Background()
	one.SetDefaults(ctx)
	if err := one.Validate(ctx); err != nil {
		return err
	}
	fmt.Println(kind.Kind)
	return nil
}
