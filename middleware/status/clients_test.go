package status_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/status"
)

// keyOf returns the key of a client that has a tunnel.
func keyOf(g *rig) string {
	for t := range g.gateway.Tunnels() {
		return t.Key()
	}
	return ""
}

type tunnelList struct {
	Total   int64
	Tunnels []struct{ ID, Backend, Key, Address, Path string }
}

func TestTunnels(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b", &status.Options{Authorize: everybody}, nil)
	c := newClient(t)
	conn, home := dial(t, c, g.srv.URL+"/chat")
	dial(t, newClient(t), g.srv.URL)
	dial(t, newClient(t), g.srv.URL)
	list := func(query string) (all tunnelList) {
		t.Helper()
		g.read("tunnels"+query, &all)
		return all
	}
	eventually(t, "three tunnels", func() bool { return list("").Total == 3 })
	one := list("?limit=1")
	if one.Total != 3 || len(one.Tunnels) != 1 {
		t.Errorf("limit: %+v", one)
	}
	if all := list("?backend=" + home); all.Total == 0 || all.Total == 3 {
		t.Errorf("of %s: %+v", home, all)
	}
	var hers string
	for _, tunnel := range list("").Tunnels {
		if tunnel.Path == "/chat" {
			hers = tunnel.ID
			if tunnel.Address != "127.0.0.1" || tunnel.Backend != home || list("?key="+url.QueryEscape(tunnel.Key)).Total != 1 {
				t.Errorf("%+v", tunnel)
			}
		}
	}
	if got := g.steer("tunnels/"+hers+"/close", `{"code":4001,"reason":"lunch"}`); !strings.Contains(got, "A tunnel to "+home+" was closed with 4001.") {
		t.Errorf("answered %s", got)
	}
	_, _, err := conn.Read(t.Context())
	if websocket.CloseStatus(err) != 4001 || !strings.Contains(err.Error(), "lunch") {
		t.Errorf("the client got %v", err)
	}
	eventually(t, "two tunnels", func() bool { return list("").Total == 2 })
	for _, query := range []string{"?limit=0", "?limit=x", "?limit=1001"} {
		if a := g.call("GET", "tunnels"+query, ""); a.status != 400 {
			t.Errorf("%s: %d", query, a.status)
		}
	}
}

// The tunnels of a client are closed on both gateways.
func TestCloseClient(t *testing.T) {
	t.Parallel()
	memory := &bus.Memory{}
	one := newRig(t, "a", &status.Options{Authorize: everybody}, &limpet.Options{Bus: memory})
	two := newRig(t, "a", nil, &limpet.Options{Bus: memory})
	one.run()
	two.run()
	c := newClient(t)
	here, _ := dial(t, c, one.srv.URL)
	there, _ := dial(t, c, two.srv.URL)
	eventually(t, "the tunnel", func() bool { return keyOf(one) != "" })
	one.steer("clients/close", `{"key":"`+keyOf(one)+`","code":1008}`)
	for _, conn := range []*websocket.Conn{here, there} {
		if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != 1008 {
			t.Errorf("the client got %v", err)
		}
	}
	if texts := one.texts("closed"); len(texts) != 1 || texts[0] != "The tunnels of a client are closed with 1008, here and on the other gateways, if it has some." {
		t.Errorf("told %q", texts)
	}
}

type pinView struct {
	Status, Backend, Goes, Key string
	Fixed                      bool
	Tunnels                    int
}

func (g *rig) find(body string) (p pinView) {
	g.t.Helper()
	if err := json.Unmarshal([]byte(g.steer("pins/find", body)), &p); err != nil {
		g.t.Fatal(err)
	}
	return p
}

func TestFindPin(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b", &status.Options{Authorize: everybody}, nil)
	c := newClient(t)
	_, home := dial(t, c, g.srv.URL)
	eventually(t, "the tunnel", func() bool { return keyOf(g) != "" })
	key := keyOf(g)
	at, _ := url.Parse(g.srv.URL)
	cookie := c.Jar.Cookies(at)[0]
	want := pinView{"hit", home, home, key, false, 1}
	for _, text := range []string{cookie.Value, cookie.Name + "=" + cookie.Value, "Cookie: x=y; " + cookie.Name + "=" + cookie.Value} {
		if got := g.find(`{"cookie":"` + text + `"}`); got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	if got := g.find(`{"key":"` + key + `"}`); got.Backend != home || got.Tunnels != 1 || got.Goes == "" {
		t.Errorf("by key: %+v", got)
	}
	if got := g.find(`{"cookie":"limpet=AAAA"}`); got.Status != "forged" || got.Backend != "" || got.Goes == "" {
		t.Errorf("forged: %+v", got)
	}
	_ = g.pool.Off(home)
	if got := g.find(`{"cookie":"` + cookie.Value + `"}`); got.Backend != home || got.Goes == home || got.Goes == "" {
		t.Errorf("its home is off: %+v", got)
	}
}

func TestFindPinByAddress(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b c", &status.Options{Authorize: everybody}, &limpet.Options{Affinity: &affinity.Hash{}})
	home := g.get("/").Header.Get("Node")
	if got := g.find(`{"address":"127.0.0.1"}`); got.Goes != home || got.Key == "" {
		t.Errorf("%+v, want %s", got, home)
	}
}

func TestFindPinBySID(t *testing.T) {
	t.Parallel()
	eio := &affinity.EngineIO{Mode: affinity.SIDModeLearn, Store: &affinity.LRU{}}
	g := newRig(t, "a b", &status.Options{Authorize: everybody}, &limpet.Options{Affinity: eio})
	if got := g.find(`{"sid":"nobody's"}`); got.Status != "unknown" {
		t.Errorf("%+v", got)
	}
}

// An answer that the affinity gives, to a session whose node is gone, is in a sum of its own.
func TestGoneIsByAffinity(t *testing.T) {
	t.Parallel()
	g := newRig(t, "", nil, &limpet.Options{Affinity: &affinity.EngineIO{Secrets: secrets}})
	polls := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `0{"sid":"abcdefghijklmnopqrst","upgrades":[],"pingInterval":25000,"pingTimeout":20000}`)
	})
	g.add("a", newNode(t, "a", polls).URL)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", g.srv.URL+"/socket.io/?EIO=4&transport=polling", nil)
	res, err := g.srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(read(t, res), `"sid":"`)
	sid, _, _ := strings.Cut(rest, `"`)
	_ = g.pool.Off("a")
	gone := g.get("/socket.io/?EIO=4&transport=polling&sid=" + url.QueryEscape(sid))
	v := g.state("")
	if gone.StatusCode != 400 || v.Totals["by_affinity"] != 1 || v.Totals["by_backend"] != 1 || v.Totals["requests"] != 2 {
		t.Errorf("%s for the sid %s, %+v", gone.Status, sid, v.Totals)
	}
}

// A client that is moved goes to its new backend with its next request, and a forgotten one is
// placed anew.
func TestMovePin(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b", &status.Options{Authorize: everybody}, nil)
	c := newClient(t)
	_, home := dial(t, c, g.srv.URL)
	eventually(t, "the tunnel", func() bool { return keyOf(g) != "" })
	other := map[string]string{"a": "b", "b": "a"}[home]
	g.steer("pins/move", `{"key":"`+keyOf(g)+`","backend":"`+other+`"}`)
	if got := get(t, c, g.srv.URL); got != other {
		t.Errorf("it is at %s, want %s", got, other)
	}
	if texts := g.texts("moved"); len(texts) != 1 || !strings.Contains(texts[0], "A client was moved to "+other) {
		t.Errorf("told %q", texts)
	}
	g.steer("pins/forget", `{"key":"`+keyOf(g)+`"}`)
	if texts := g.texts("moved"); len(texts) != 2 {
		t.Errorf("told %q", texts)
	}
	for call, body := range map[string]string{"move": `{"key":"mistyped","backend":"a"}`, "forget": `{"key":"mistyped"}`} {
		if a := g.call("POST", "pins/"+call, body); a.status != 200 || !strings.Contains(a.body, "No WebSocket at this gateway has this key") {
			t.Errorf("%s of a key that nobody has: %d %s", call, a.status, a.body)
		}
	}
}
