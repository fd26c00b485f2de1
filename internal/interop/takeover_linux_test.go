package interop_test

import (
	"path/filepath"
	"testing"

	"github.com/limpet-go/limpet/internal/interop"
)

// A gateway is replaced by a new process under load, and that one by a third: no client is
// disturbed, whichever way it is connected.
func TestTakeover(t *testing.T) {
	each(t, func(t *testing.T, v interop.Version) {
		cluster := interop.Start(t, v, 3)
		flags := []string{"-takeover", filepath.Join(t.TempDir(), "takeover")}
		s := connect(t, cluster, 18, nil, flags...)
		s.Load(t, 100)
		before := homes(s.Events("connect"))
		for range 2 {
			old := s.gateway
			s.gateway = interop.StartGateway(t, cluster, flags...)
			if s.gateway.URL != old.URL {
				t.Fatalf("the successor serves %s, and not %s", s.gateway.URL, old.URL)
			}
			old.AwaitLine(t, `handed over tunnels=12`)
			s.gateway.AwaitLine(t, `taken over tunnels=12`)
			s.Ask(t, s.names, "echo", "still there?")
		}
		s.unmoved(t, before)
		for _, kind := range []string{"disconnect", "refused"} {
			for _, e := range s.Events(kind) {
				t.Errorf("%s: %s %s%s %s %d", e.Client, kind, e.Reason, e.Method, e.URL, e.Status)
			}
		}
	})
}
