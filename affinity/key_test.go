package affinity_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

func TestQuery(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"":                    "",
		"id=7":                "7",
		"a=1&id=7&b=2":        "7",
		"a=1;b=2&id=7":        "7",
		"a=%zz&id=7":          "7",
		"id=7;8":              "7;8",
		"id=%zz":              "%zz",
		"id=%41%20b+c":        "A b c",
		"%69d=7":              "7",
		"id":                  "",
		"id=&id=7":            "7",
		"id=7&id=8":           "7",
		"xid=1&ID=2&idx=3":    "",
		"&&==&=7&id=a=b%3Dc&": "a=b=c",
	} {
		r := get("/")
		r.URL.RawQuery = query
		if got := affinity.Query("id").Key(r); got != want {
			t.Errorf("%q: key = %q, want %q", query, got, want)
		}
	}
}

func TestCookieValue(t *testing.T) {
	t.Parallel()
	key := affinity.CookieValue("sid")
	want := key.Key(get("/", "sid=secret"))
	if len(want) != 22 || strings.Contains(want, "secret") || want == key.Key(get("/", "sid=Secret")) {
		t.Errorf("key = %q", want)
	}
	for cookies, same := range map[string]bool{
		`a=1; sid="secret"; sid=x`: true,
		"sid=; sid=secret":         true,
		"xsid=secret; a=sid=1":     false,
		"sid=":                     false,
	} {
		if got := key.Key(get("/", cookies)); (got == want) != same || !same && got != "" {
			t.Errorf("%q: key = %q", cookies, got)
		}
	}
}

func TestHeaderAndKeyFunc(t *testing.T) {
	t.Parallel()
	r := get("/")
	r.Header["X-User"] = []string{"ann", "bob"}
	r.Host = "www.example.com"
	if got := affinity.Header("host").Key(r); got != r.Host {
		t.Errorf("Header(host): key = %q", got)
	}
	for name, good := range map[affinity.Header]bool{"X-User": true, "": false, "X User": false, "X-User:": false} {
		if err := (&affinity.Hash{Key: name}).Validate(); (err == nil) != good {
			t.Errorf("Header(%q): Validate = %v", name, err)
		}
	}
	if got := affinity.Header("x-user").Key(r); got != "ann" {
		t.Errorf("key = %q", got)
	}
	f := affinity.KeyFunc(func(r *http.Request) string { return r.Method })
	if got := f.Key(r); got != "GET" {
		t.Errorf("key = %q", got)
	}
}

func TestClientAddr(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		key    affinity.ClientAddr
		remote string
		want   string
	}{
		{"IPv4", affinity.ClientAddr{}, "192.0.2.77:1234", "192.0.2.77/32"},
		{"IPv4 by network", affinity.ClientAddr{V4: 24}, "192.0.2.77:1234", "192.0.2.0/24"},
		{"IPv6", affinity.ClientAddr{V4: 24}, "[2001:db8:1:2:3:4:5:6]:1234", "2001:db8:1:2::/64"},
		{"IPv6 in full", affinity.ClientAddr{V6: 128}, "[2001:db8::1]:1234", "2001:db8::1/128"},
		{"zone", affinity.ClientAddr{}, "[fe80::1%eth0]:1234", "fe80::/64"},
		{"IPv4 in IPv6", affinity.ClientAddr{}, "[::ffff:192.0.2.77]:1234", "192.0.2.77/32"},
		{"no port", affinity.ClientAddr{}, "192.0.2.77", "192.0.2.77/32"},
		{"Unix socket", affinity.ClientAddr{}, "@", ""},
		{"nothing", affinity.ClientAddr{}, "", ""},
		{"too many bits", affinity.ClientAddr{V4: 33}, "192.0.2.77:1234", ""},
		{"own function", affinity.ClientAddr{Addr: func(*http.Request) netip.Addr { return netip.MustParseAddr("198.51.100.1") }},
			"192.0.2.77:1234", "198.51.100.1/32"},
	} {
		r := get("/")
		r.RemoteAddr = tt.remote
		if got := tt.key.Key(r); got != tt.want {
			t.Errorf("%s: key = %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Every affinity with a key by address gets the gateway's judgement of the address,
// also within a chain, unless the user has set a function.
func TestTrust(t *testing.T) {
	t.Parallel()
	own := &affinity.ClientAddr{Addr: func(*http.Request) netip.Addr { return netip.MustParseAddr("203.0.113.9") }}
	cookie := &affinity.Cookie{Secrets: testSecrets}
	chain := affinity.Chain{
		cookie, &affinity.Hash{}, &affinity.Table{}, &affinity.CookieMap{},
		affinity.Chain{&affinity.Hash{Key: &affinity.ClientAddr{V4: 24}}},
		&affinity.Hash{Key: own}, &affinity.Hash{Key: affinity.Query("a")},
	}
	chain.Trust(func(*http.Request) netip.Addr { return netip.MustParseAddr("198.51.100.1") },
		func(*http.Request) bool { return true })

	r := get("http://a.example/?a=7")
	for i, want := range []string{"", "198.51.100.1/32", "198.51.100.1/32", "198.51.100.1/32", "198.51.100.0/24", "203.0.113.9/32", "7"} {
		if found := find(t, chain[i], r); found.Key != want {
			t.Errorf("member %d: key = %q, want %q", i, found.Key, want)
		}
	}
	if set := bind(t, cookie, r, affinity.Pin{}, "b1").Get("Set-Cookie"); set[:7] != "__Host-" {
		t.Errorf("Set-Cookie = %q", set)
	}
}
