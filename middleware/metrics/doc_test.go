package metrics_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/metrics"
)

// described returns the labels of each metric that a collector describes, by its name.
func described(t *testing.T) map[string][]string {
	t.Helper()
	gateway, err := limpet.NewGateway(balancer.Static("a=http://127.0.0.1:1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	rooms, err := hub.New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := metrics.New(gateway, &metrics.Options{Bus: &bus.Memory{}, Hub: rooms})
	defer c.Stop()
	ch := make(chan *prometheus.Desc)
	go func() { c.Describe(ch); close(ch) }()
	all := make(map[string][]string)
	desc := regexp.MustCompile(`fqName: "(\w+)".*variableLabels: \{([\w,]*)\}`)
	for d := range ch {
		m := desc.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("can't read %s", d)
		}
		all[m[1]] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' })
	}
	return all
}

// The documentation lists each metric with its labels, and no other.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string][]string)
	for _, m := range regexp.MustCompile(`(?m)^//\t(limpet_\w+)(?:\{([\w,]+)\})?(?: |$)`).FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' })
	}
	all := described(t)
	if !maps.EqualFunc(listed, all, slices.Equal) {
		t.Errorf("doc.go lists\n%v\nbut there are\n%v", listed, all)
	}
}
