package balancer_test

import (
	"strings"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

func TestParseBackend(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, spec string
		id, url    string // "" if the spec is wrong
		weight     int
	}{
		{"plain", "a=http://10.0.0.1:3000", "a", "http://10.0.0.1:3000", 1},
		{"slash", "a=http://10.0.0.1:3000/", "a", "http://10.0.0.1:3000", 1},
		{"https without port", "node-1.b:C_2=https://node.example", "node-1.b:C_2", "https://node.example", 1},
		{"IPv6", "a=http://[::1]:80", "a", "http://[::1]:80", 1},
		{"Unix socket", "a=unix:///run/app.sock", "a", "unix:///run/app.sock", 1},
		{"Unix socket with weight", "a=unix:///run/app.sock,weight=2", "a", "unix:///run/app.sock", 2},
		{"weight", "a=http://h,weight=7", "a", "http://h", 7},
		{"weight zero", "a=http://h,weight=0", "", "", 0},
		{"negative weight", "a=http://h,weight=-1", "", "", 0},
		{"huge weight", "a=http://h,weight=1000001", "", "", 0},
		{"no number", "a=http://h,weight=x", "", "", 0},
		{"unknown option", "a=http://h,wait=1", "", "", 0},
		{"no ID", "http://h", "", "", 0},
		{"empty ID", "=http://h", "", "", 0},
		{"long ID", strings.Repeat("a", 65) + "=http://h", "", "", 0},
		{"space in ID", "a b=http://h", "", "", 0},
		{"no URL", "a", "", "", 0},
		{"no host", "a=http://", "", "", 0},
		{"port alone", "a=http://:80", "", "", 0},
		{"port 0", "a=http://h:0", "", "", 0},
		{"port 70000", "a=http://h:70000", "", "", 0},
		{"other scheme", "a=ws://h", "", "", 0},
		{"no scheme", "a=h:80", "", "", 0},
		{"relative socket", "a=unix:app.sock", "", "", 0},
		{"socket on a host", "a=unix://run/app.sock", "", "", 0},
		{"no socket", "a=unix:///", "", "", 0},
		{"socket with query", "a=unix:///run/app.sock?x", "", "", 0},
		{"socket with zero byte", "a=unix:///run/%00app.sock", "", "", 0},
		{"long socket", "a=unix:///" + strings.Repeat("a", 107), "", "", 0},
		{"path", "a=http://h/x", "", "", 0},
		{"query", "a=http://h?x", "", "", 0},
		{"fragment", "a=http://h#x", "", "", 0},
		{"user", "a=http://u:secret@h", "", "", 0},
		{"broken user", "a=http://u:secret/@h", "", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := balancer.ParseBackend(tt.spec)
			if tt.id == "" {
				if err == nil {
					t.Fatalf("accepted as %s at %s", b.ID(), b.URL())
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("the error tells a secret: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if b.ID() != tt.id || b.URL().String() != tt.url || b.Weight() != tt.weight {
				t.Errorf("got %s at %s, weight %d", b.ID(), b.URL(), b.Weight())
			}
		})
	}
}

// Each mistake is answered with what to write instead.
func TestParseBackendSaysTheCure(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, spec, want string }{
		{"no scheme", "a=10.0.0.1:3000", "no scheme: write http://10.0.0.1:3000"},
		{"no scheme, a name", "a=localhost:3000/", "no scheme: write http://localhost:3000,"},
		{"no scheme, no port", "a=node-1.example", "no scheme: write http://node-1.example"},
		{"no scheme, IPv6", "a=[::1]:3000", "no scheme: write http://[::1]:3000"},
		{"IPv6 without brackets", "a=http://::1:3000", "brackets"},
		{"a socket without a scheme", "a=/run/app.sock", "write unix:///path"},
		{"a socket with two slashes", "a=unix://run/app.sock", "three slashes"},
		{"WebSocket", "a=ws://h:3000", "write http"},
		{"WebSocket over TLS", "a=wss://h:3000", "write https"},
		{"another scheme", "a=tcp://h:3000", "want http://host:port"},
		{"a path", "a=http://h:3000/socket.io", "has a path: write http://h:3000,"},
		{"a query", "a=http://h:3000?weight=2", "has a query: write http://h:3000,"},
		{"a user", "a=http://u:secret@h:3000", "has a user: write http://host:port"},
		{"a user, and a path", "a=https://u:secret@h:3000/x", "has a user: write https://host:port"},
		{"a port that can't be", "a=http://h:70000", "port 70000: want one of 1 to 65535"},
		{"a port that is none", "a=http://h:secret", "number as port"},
		{"nothing", "a=", "empty: want one such as http://"},
		{"no ID", "http://10.0.0.1:3000", "want ID=URL"},
		{"no ID, and a query", "http://u:secret@h?token=x", "want ID=URL"},
		{"a weight that is none", "a=http://h,weight=many", `weight "many": want a whole number`},
		{"a weight of zero", "a=http://h,weight=0", "weight is 0: leave it out for 1"},
		{"a weight without a number", "a=http://h,weight=", "its weight is empty"},
		{"a weight twice", "a=http://h,weight=1,weight=2", "there twice"},
		{"a list with commas", "a=http://h:1,b=http://h:2", `another backend "b=http://h:2": write each by itself, and in a list put spaces between them`},
		{"a list with commas, and a password", "a=http://h:1,weight=2,b=http://u:p@h:2", "another backend: write"},
		{"a group that is none", "a=http://h,group=a b", `group "a b": want 1 to 64`},
		{"another option", "a=http://h,wieght=2", `"wieght=2" is no option: want weight=N`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := balancer.ParsePool(nil, "good=http://h", tt.spec)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	p, err := balancer.ParsePool(&balancer.Options{StartDown: true}, "a=http://h:1", "b=http://h:2,weight=3")
	must(t, err)
	if b := p.Get("b"); p.Len() != 2 || b.Weight() != 3 || b.State() != balancer.Down {
		t.Errorf("%d backends, b has weight %d and is %v", p.Len(), b.Weight(), b.State())
	}
	if _, err := balancer.ParsePool(nil, "a=http://h:1", "a=http://h:2"); err == nil {
		t.Error("two backends of one ID")
	}
}

func TestBeginCounts(t *testing.T) {
	t.Parallel()
	b := newBackend(t, "a", 1)
	b.Begin()
	b.Begin()
	b.End()
	if n := b.InFlight(); n != 1 {
		t.Errorf("in flight: %d, want 1", n)
	}
	b.End()
	if n := b.InFlight(); n != 0 {
		t.Errorf("in flight: %d, want 0", n)
	}
}
