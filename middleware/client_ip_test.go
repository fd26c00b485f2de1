package middleware_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	limpet "github.com/limpet-go/limpet/middleware"
)

var proxies = limpet.ClientIP{Trusted: []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("fd00::/8"),
}}

func TestClientIPAddr(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, peer string
		xff        []string
		want       string
	}{
		{"direct", "192.0.2.1:1234", nil, "192.0.2.1"},
		{"untrusted peer is not believed", "192.0.2.1:1234", []string{"198.51.100.7"}, "192.0.2.1"},
		{"behind a proxy", "10.0.0.1:1234", []string{"198.51.100.7"}, "198.51.100.7"},
		{"what the client wrote stands left", "10.0.0.1:1", []string{"1.1.1.1, 198.51.100.7"}, "198.51.100.7"},
		{"two proxies", "10.0.0.1:1", []string{"1.1.1.1, 198.51.100.7, 10.0.0.2"}, "198.51.100.7"},
		{"several lines are one list", "10.0.0.1:1", []string{"1.1.1.1", "198.51.100.7", "10.0.0.2,10.0.0.3"}, "198.51.100.7"},
		{"all trusted", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"proxy says nothing", "10.0.0.1:1", nil, "10.0.0.1"},
		{"no address stops the walk", "10.0.0.1:1", []string{"1.1.1.1, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"empty entries", "10.0.0.1:1", []string{" , 198.51.100.7 ,, "}, "198.51.100.7"},
		{"port", "10.0.0.1:1", []string{"198.51.100.7:4711"}, "198.51.100.7"},
		{"IPv6", "[fd00::1]:1", []string{"2001:db8::7"}, "2001:db8::7"},
		{"IPv6 in brackets", "10.0.0.1:1", []string{"[2001:db8::7]"}, "2001:db8::7"},
		{"IPv6 with a port", "10.0.0.1:1", []string{"[2001:db8::7]:4711"}, "2001:db8::7"},
		{"mapped", "[::ffff:10.0.0.1]:1", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{"zone", "[fe80::1%eth0]:1", nil, "fe80::1"},
		{"Unix socket", "@", []string{"198.51.100.7"}, "invalid IP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.peer
			r.Header["X-Forwarded-For"] = tt.xff
			if got := proxies.Addr(r).String(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if r.RemoteAddr != tt.peer {
				t.Error("RemoteAddr was overwritten")
			}
		})
	}
}

func TestClientIPSecure(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, peer string
		tls        bool
		proto      []string
		want       bool
	}{
		{"plain", "192.0.2.1:1", false, nil, false},
		{"TLS here", "192.0.2.1:1", true, nil, true},
		{"untrusted peer is not believed", "192.0.2.1:1", false, []string{"https"}, false},
		{"TLS at the proxy", "10.0.0.1:1", false, []string{"HTTPS"}, true},
		{"the nearest proxy counts", "10.0.0.1:1", false, []string{"https", "https, http"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.peer
			r.Header["X-Forwarded-Proto"] = tt.proto
			if tt.tls {
				r.TLS = &tls.ConnectionState{}
			}
			if got := proxies.Secure(r); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// What a backend is told about the client.
func TestForwardedFields(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got <- r.Header.Clone() }))
	gw := newGateway(t, pool, &limpet.Options{ClientIP: proxies})
	incoming := map[string]string{
		"X-Forwarded-For":   "198.51.100.7",
		"X-Forwarded-Host":  "shop.example",
		"X-Forwarded-Proto": "https",
		"X-Forwarded-Port":  "443",
		"Forwarded":         "for=198.51.100.7",
		"X-Real-Ip":         "6.6.6.6",
		"X_Forwarded_For":   "6.6.6.6",
		"X_Real_IP":         "6.6.6.6",
	}
	for _, tt := range []struct {
		name, peer string
		want       map[string]string
	}{
		{"untrusted", "[2001:db8::1]:1", map[string]string{
			"X-Forwarded-For":   "2001:db8::1",
			"X-Forwarded-Host":  "example.com",
			"X-Forwarded-Proto": "http",
			"X-Forwarded-Port":  "",
			"Forwarded":         `for="[2001:db8::1]";host="example.com";proto=http`,
			"X-Real-Ip":         "2001:db8::1",
		}},
		{"trusted", "10.0.0.1:1", map[string]string{
			"X-Forwarded-For":   "198.51.100.7, 10.0.0.1",
			"X-Forwarded-Host":  "shop.example",
			"X-Forwarded-Proto": "https",
			"X-Forwarded-Port":  "443",
			"Forwarded":         `for=198.51.100.7;host="shop.example";proto=https`,
			"X-Real-Ip":         "198.51.100.7",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.peer
			for name, value := range incoming {
				r.Header.Set(name, value)
			}
			gw.ServeHTTP(httptest.NewRecorder(), r)
			h := <-got
			for name := range h {
				if strings.Contains(name, "_") {
					t.Errorf("%s reached the backend", name)
				}
			}
			for name, want := range tt.want {
				if v := h.Values(name); (want == "" && v != nil) || (want != "" && (len(v) != 1 || v[0] != want)) {
					t.Errorf("%s: %q, want %q", name, v, want)
				}
			}
		})
	}
}

func FuzzClientIP(f *testing.F) {
	f.Add("198.51.100.7, 10.0.0.2", "[2001:db8::7]:1")
	f.Add("unknown,,", ":::,%")
	f.Fuzz(func(t *testing.T, first, second string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "10.0.0.1:1"
		r.Header["X-Forwarded-For"] = []string{first, second}
		addr := proxies.Addr(r)
		if !addr.IsValid() || addr.Zone() != "" || addr.Is4In6() {
			t.Errorf("Addr is %v", addr)
		}
		// Whatever the list says, one more trusted hop on its right changes nothing.
		r.Header.Add("X-Forwarded-For", "10.9.9.9")
		if again := proxies.Addr(r); again != addr && addr != netip.MustParseAddr("10.0.0.1") {
			t.Errorf("behind one more proxy %v became %v", addr, again)
		}
	})
}
