//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/need"
)

// Each gateway that is installed runs as it is configured: it passes on what
// clients do, and those with a cookie always meet the same of two backends.
func TestPeers(t *testing.T) {
	b := small(t)
	addrs := running(t, b)
	peers, err := allPeers(t.Context(), b.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			if p.path == "" {
				program := strings.ToLower(p.name)
				need.Program(t, program, program) // which says that it is missing
			}
			homes := make(map[string]int)
			c := &scene{name: "visit", play: func(t *trial) error {
				visitors := make([]*visitor, 40)
				for i := range visitors {
					visitors[i] = poller()
				}
				next := slices.Clone(visitors)
				if err := t.fetch(len(visitors), func() *visitor { v := next[0]; next = next[1:]; return v }); err != nil {
					return err
				}
				for _, v := range visitors {
					homes[string(v.want)]++
				}
				return t.echo(64, 4)
			}}
			r, err := b.try(t.Context(), p, c, addrs)
			if err != nil || r.Errors > 0 || r.Operations == 0 {
				t.Errorf("%v: %+v", err, r)
			}
			if sticks := p.name != "ReverseProxy"; sticks != (len(homes) == 2) {
				t.Errorf("homes of its clients: %v", homes)
			}
		})
	}
}
