// Check reads Kubernetes manifests as strictly as an API server with the option
// --validate=strict: each field must exist, once, and have the right type. It prints each
// object as a line of JSON.
//
//	go run . ../gateway.yaml ../nodes.yaml
//
// It is a module of its own, since Limpet needs nothing of Kubernetes.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// kinds makes an object of each kind that the manifests use.
var kinds = map[metav1.TypeMeta]func() any{
	{APIVersion: "apps/v1", Kind: "Deployment"}:                       func() any { return &appsv1.Deployment{} },
	{APIVersion: "apps/v1", Kind: "StatefulSet"}:                      func() any { return &appsv1.StatefulSet{} },
	{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}:       func() any { return &networkingv1.NetworkPolicy{} },
	{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}:            func() any { return &policyv1.PodDisruptionBudget{} },
	{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "Role"}:        func() any { return &rbacv1.Role{} },
	{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "RoleBinding"}: func() any { return &rbacv1.RoleBinding{} },
	{APIVersion: "v1", Kind: "Service"}:                               func() any { return &corev1.Service{} },
	{APIVersion: "v1", Kind: "ServiceAccount"}:                        func() any { return &corev1.ServiceAccount{} },
}

// border is the line between two documents.
var border = regexp.MustCompile(`(?m)^---\s*$`)

func main() {
	for _, file := range os.Args[1:] {
		if err := check(file); err != nil {
			fmt.Fprintln(os.Stderr, "check:", err)
			os.Exit(1)
		}
	}
}

func check(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for i, document := range border.Split(string(text), -1) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
			return fmt.Errorf("%s, document %d: %w", file, i+1, err)
		}
		object := kinds[kind]
		if object == nil {
			return fmt.Errorf("%s, document %d: %s %q isn't known here", file, i+1, kind.APIVersion, kind.Kind)
		}
		o := object()
		if err := yaml.UnmarshalStrict([]byte(document), o); err != nil {
			return fmt.Errorf("%s, %s: %w", file, kind.Kind, err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
			return err
		}
	}
	return nil
}
