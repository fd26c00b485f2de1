package affinity_test

import (
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

func TestCookieMap(t *testing.T) {
	t.Parallel()
	m := &affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "b1", "2": "b2"}, Default: "b0"}
	const key = "192.0.2.1/32" // of all requests of package httptest
	for _, tt := range []struct {
		name    string
		cookies []string
		want    affinity.Pin
	}{
		{"none", nil, affinity.Pin{Backend: "b0", Key: key}},
		{"other cookies", []string{"xserver=1; a=server=1"}, affinity.Pin{Backend: "b0", Key: key}},
		{"known", []string{"a=1; server=2"}, affinity.Pin{Backend: "b2", Key: key, Status: affinity.Hit}},
		{"in quotes", []string{`server="2"`}, affinity.Pin{Backend: "b2", Key: key, Status: affinity.Hit}},
		{"unknown", []string{"server=3"}, affinity.Pin{Backend: "b0", Key: key, Status: affinity.Unknown}},
		{"several", []string{"server=3; server=1", "server=2"}, affinity.Pin{Backend: "b1", Key: key, Status: affinity.Hit}},
	} {
		if found := find(t, m, get("/", tt.cookies...)); found != tt.want {
			t.Errorf("%s: Find = %+v, want %+v", tt.name, found, tt.want)
		}
	}
	if h := bind(t, m, get("/"), affinity.Pin{}, "b1"); len(h) > 0 {
		t.Errorf("Bind sets %v", h)
	}
	// Without a name nothing is found, and nothing hangs.
	if found := find(t, &affinity.CookieMap{}, get("/", "=1; server=1")); found != (affinity.Pin{Key: key}) {
		t.Errorf("Find = %+v", found)
	}
}
