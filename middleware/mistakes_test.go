package middleware_test

import (
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// brokenBus is a bus that knows what is wrong with it.
type brokenBus struct{ bus.Memory }

func (*brokenBus) Validate() error { return errors.New("bus: no Client") }

// What no user can mean is an error of the constructor, and for a Sticky, which
// has none, of each call.
func TestMistakes(t *testing.T) {
	t.Parallel()
	const gateway, both = false, true
	retry := func(r limpet.Retry) limpet.Options { return limpet.Options{Retry: r} }
	field := func(name string) limpet.Options { return limpet.Options{PinHeader: name} }
	for _, tt := range []struct {
		name   string
		opts   limpet.Options
		sticky bool   // has these fields too
		want   string // in the error, "" for none
	}{
		{"nothing", limpet.Options{}, both, ""},
		{"Gone before the first", limpet.Options{Gone: -1}, both, "Gone is -1"},
		{"Gone behind the last", limpet.Options{Gone: 3}, both, "Gone is 3"},
		{"WaitFor", limpet.Options{WaitFor: -time.Second}, both, "WaitFor -1s"},
		{"LameDuck", limpet.Options{LameDuck: -time.Second}, gateway, "LameDuck -1s"},
		{"LameDuck without a unit", limpet.Options{LameDuck: 10}, gateway, "LameDuck is 10ns: a number without a unit"},
		{"WaitFor without a unit", limpet.Options{WaitFor: 5}, both, "WaitFor is 5ns: a number without a unit"},
		{"Attempts", retry(limpet.Retry{Attempts: -1}), both, "Attempts -1"},
		{"Floor", retry(limpet.Retry{Floor: -1}), both, "Floor -1"},
		{"Body", retry(limpet.Retry{Body: -1}), both, "Body -1"},
		{"a negative Budget", retry(limpet.Retry{Budget: -0.1}), both, "Budget is -0.1"},
		{"a Budget in percent", retry(limpet.Retry{Budget: 20}), both, "Budget is 20"},
		{"no Budget", retry(limpet.Retry{Budget: math.NaN()}), both, "Budget is NaN"},
		{"all of a Budget", retry(limpet.Retry{Budget: 1}), both, ""},
		{"a field that can't be", field("Limpet Pin"), both, `"Limpet Pin"`},
		{"a field with a colon", field("Limpet-Pin:"), both, `"Limpet-Pin:"`},
		{"a field with a line break", field("A\r\nB"), both, `"A\r\nB"`},
		{"a field of the connection", field("connection"), both, `"connection"`},
		{"a field of the framing", field("Content-Length"), both, "Content-Length"},
		{"another one of the framing", field("transfer-encoding"), both, "transfer-encoding"},
		{"a field of the handshake", field("Sec-WebSocket-Accept"), both, "Sec-WebSocket-Accept"},
		{"a field with cookies", field("Set-Cookie"), both, "Set-Cookie"},
		{"a field", field("x-pin"), both, ""},
		{"an address that is none", limpet.Options{ClientIP: limpet.ClientIP{Trusted: []netip.Prefix{{}}}}, both, "Trusted"},
		{"all addresses", limpet.Options{ClientIP: limpet.ClientIP{Trusted: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}, both, "0.0.0.0/0, so every client"},
		{"all addresses of IPv6", limpet.Options{ClientIP: limpet.ClientIP{Trusted: []netip.Prefix{netip.MustParsePrefix("::/0")}}}, both, "::/0, so every client"},
		{"an affinity", limpet.Options{Affinity: affinity.Chain{}}, both, "no members"},
		{"a nil affinity of some type", limpet.Options{Affinity: (*affinity.Cookie)(nil)}, both, "nil *affinity.Cookie"},
		{"a nil bus of some type", limpet.Options{Bus: (*bus.Redis)(nil)}, gateway, "nil *bus.Redis"},
		{"a key of zeros", limpet.Options{Affinity: &affinity.Cookie{Secrets: [][]byte{make([]byte, 32)}}}, both, "openssl rand"},
		{"a transport", limpet.Options{Transport: &balancer.Transport{MaxIdle: -1}}, both, "MaxIdle -1"},
		{"limits of tunnels", limpet.Options{Upgrade: &upgrade.Proxy{IdleTimeout: -1}}, gateway, "IdleTimeout"},
		{"a bus", limpet.Options{Bus: &brokenBus{}}, gateway, "no Client"},
		{"a bus that isn't asked", limpet.Options{Bus: &bus.Memory{}}, gateway, ""},
	} {
		tt.opts.Logger = slog.New(slog.DiscardHandler)
		if tt.opts.Affinity == nil {
			tt.opts.Affinity = &affinity.Cookie{Secrets: testKeys}
		}
		check := func(what string, err error) {
			if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "limpet: ")) {
				t.Errorf("%s: %s: %v, want an error with %q", tt.name, what, err, tt.want)
			}
		}
		pool := balancer.Static("a=http://127.0.0.1:1")
		opts := tt.opts
		_, err := limpet.NewGateway(pool, &opts)
		check("NewGateway", err)
		if opts.Upgrade != nil && opts.Upgrade.Dial != nil {
			t.Errorf("%s: the Proxy was taken by a gateway that isn't", tt.name)
		}
		if tt.sticky && tt.want != "" {
			s := &limpet.Sticky{
				Pool: pool, Affinity: opts.Affinity, ClientIP: opts.ClientIP, Gone: opts.Gone, WaitFor: opts.WaitFor,
				Retry: opts.Retry, PinHeader: opts.PinHeader, Logger: opts.Logger,
			}
			if opts.Transport != nil {
				s.Transport = opts.Transport
			}
			req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://x.test/", nil)
			_, err := s.RoundTrip(req)
			check("Sticky", err)
		}
	}
}

func TestAssignCookieMistakes(t *testing.T) {
	t.Parallel()
	backends := map[string]string{"1": "a"}
	for name, a := range map[string]*limpet.AssignCookie{
		"no name":               {Backends: backends},
		"no backends":           {Cookie: http.Cookie{Name: "server"}},
		"a value of nowhere":    {Cookie: http.Cookie{Name: "server"}, Backends: map[string]string{"1": ""}},
		"an empty value":        {Cookie: http.Cookie{Name: "server"}, Backends: map[string]string{"": "a"}},
		"a value that can't be": {Cookie: http.Cookie{Name: "server"}, Backends: map[string]string{"1;": "a"}},
		"deletion":              {Cookie: http.Cookie{Name: "server", MaxAge: -1}, Backends: backends},
		"SameSite=None":         {Cookie: http.Cookie{Name: "server", SameSite: http.SameSiteNoneMode}, Backends: backends},
		"a prefix":              {Cookie: http.Cookie{Name: "__Host-server"}, Backends: backends},
		"a path":                {Cookie: http.Cookie{Name: "server", Path: "chat"}, Backends: backends},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			a.Handler(nil)
		}()
	}
}
