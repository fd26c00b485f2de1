//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i))
	}
	for _, tt := range []struct {
		name     string
		times    []time.Duration
		p50, p99 time.Duration
	}{
		{"none", nil, 0, 0},
		{"one", []time.Duration{7}, 7, 7},
		{"two", []time.Duration{9, 3}, 9, 9},
		{"hundred", hundred, 51, 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if p50, p99 := percentile(tt.times, 0.5), percentile(tt.times, 0.99); p50 != tt.p50 || p99 != tt.p99 {
				t.Errorf("p50 %d, p99 %d, want %d and %d", p50, p99, tt.p50, tt.p99)
			}
		})
	}
}

// Each round has a speed of its own. Figures are medians, and ratios those of
// the rounds, not of the medians.
func TestSummary(t *testing.T) {
	r := &report{
		cases: []*scene{{name: "GET"}, {name: "other"}},
		Peers: []reportedPeer{{Name: "Limpet"}, {Name: "nginx"}, {Name: "Caddy", Missing: true}},
		Runs: []result{
			{Round: 1, Case: "GET", Peer: "Limpet", CPU: 30, P99: 9}, {Round: 1, Case: "GET", Peer: "nginx", CPU: 10, P99: 3},
			{Round: 2, Case: "GET", Peer: "nginx", CPU: 50, P99: 5}, {Round: 2, Case: "GET", Peer: "Limpet", CPU: 100, P99: 7, Errors: 2, Error: "lost"},
			{Round: 3, Case: "GET", Peer: "Limpet", CPU: 20, P99: 8}, {Round: 3, Case: "GET", Peer: "nginx", CPU: 20, P99: 8},
			{Round: 1, Case: "other", Peer: "Limpet", CPU: 1},
		},
	}
	r.summarise()
	if m := r.of(r.cases[0], "Limpet"); m == nil || m.CPU != 30 || m.P99 != 8 || m.Ratio != 2 || m.Errors != 2 || m.Error != "lost" {
		t.Errorf("Limpet: %+v", m)
	}
	if m := r.of(r.cases[0], "nginx"); m == nil || m.CPU != 20 || m.Ratio != 0 || m.Errors != 0 {
		t.Errorf("nginx: %+v", m)
	}
	if m := r.of(r.cases[1], "Limpet"); m == nil || m.CPU != 1 || m.Ratio != 0 {
		t.Errorf("a case that the baseline wasn't measured at: %+v", m)
	}
	var tables bytes.Buffer
	r.markdown(&tables)
	for _, want := range []string{
		"\n| Processor time, µs an operation | Limpet | nginx |\n|---|---:|---:|\n| GET | 30.0 (2.00×) **2 errors** | 20.0 |\n| other | 1.0 | |\n",
		"\n- Caddy is not installed\n",
		"\nGET, Limpet: 2 errors, the first: lost\n",
	} {
		if !strings.Contains(tables.String(), want) {
			t.Errorf("the tables lack %q:\n%s", want, &tables)
		}
	}
}
