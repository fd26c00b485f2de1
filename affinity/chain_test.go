package affinity_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

// member is an affinity that always finds the same pin and records the pins with
// which it is called.
type member struct {
	pin  affinity.Pin
	err  error
	told []affinity.Pin
}

func (m *member) Find(*http.Request) (affinity.Pin, error) { return m.pin, m.err }

func (m *member) Bind(a affinity.Answer) (string, error) {
	m.told = append(m.told, a.Found)
	return a.Found.Key, m.err
}

// goneHandler also is a Rewriter and a GoneHandler.
type goneHandler struct{ member }

func (g *goneHandler) Rewrite(_ *http.Request, found affinity.Pin) { g.told = append(g.told, found) }

func (g *goneHandler) Gone(_ *http.Request, found affinity.Pin) *http.Response {
	return &http.Response{Status: found.Backend}
}

func TestChainFind(t *testing.T) {
	t.Parallel()
	type pins = []affinity.Pin
	for _, tt := range []struct {
		name string
		pins pins
		want affinity.Pin
	}{
		{"empty", nil, affinity.Pin{}},
		{"home and key of different members", pins{{Key: "k1"}, {Backend: "b2", Key: "k2", Status: affinity.Hit}},
			affinity.Pin{Backend: "b2", Key: "k1", Status: affinity.Hit}},
		{"two homes", pins{{Backend: "b1", Status: affinity.Unknown}, {Backend: "b2", Key: "k2", Status: affinity.Hit, Fixed: true}},
			affinity.Pin{Backend: "b1", Key: "k2", Status: affinity.Unknown}},
		{"a fixed home", pins{{Status: affinity.Forged}, {Backend: "b2", Status: affinity.Hit, Fixed: true}},
			affinity.Pin{Backend: "b2", Status: affinity.Hit, Fixed: true}},
		{"no home", pins{{}, {Key: "k", Status: affinity.Expired}, {Status: affinity.Forged}},
			affinity.Pin{Key: "k", Status: affinity.Expired}},
	} {
		var c affinity.Chain
		for _, p := range tt.pins {
			c = append(c, &member{pin: p})
		}
		found := find(t, c, get("/"))
		found.Note = nil
		if found != tt.want {
			t.Errorf("%s: Find = %+v, want %+v", tt.name, found, tt.want)
		}
	}
}

func TestChainTellsEachItsOwn(t *testing.T) {
	t.Parallel()
	p1 := affinity.Pin{Key: "k1", Note: "one"}
	p2 := affinity.Pin{Backend: "b2", Note: "two"}
	e1, e2 := errors.New("trouble 1"), errors.New("trouble 2")
	m1, m2 := &member{pin: p1, err: e1}, &goneHandler{member{pin: p2, err: e2}}
	c := affinity.Chain{m1, affinity.Chain{m2}}

	found, err := c.Find(get("/"))
	if !errors.Is(err, e1) || !errors.Is(err, e2) || found.Backend != "b2" || found.Key != "k1" {
		t.Errorf("Find = %+v, %v", found, err)
	}
	c.Rewrite(get("/"), found)
	key, err := c.Bind(to("b3", &http.Response{Request: get("/")}, found))
	if !errors.Is(err, e1) || !errors.Is(err, e2) {
		t.Errorf("Bind = %v", err)
	}
	if key != "k1" {
		t.Errorf("Bind returned the key %q, want the first member's", key)
	}
	if len(m1.told) != 1 || m1.told[0] != p1 {
		t.Errorf("member 1 was told %+v", m1.told)
	}
	if len(m2.told) != 2 || m2.told[0] != p2 || m2.told[1] != p2 {
		t.Errorf("member 2 was told %+v", m2.told)
	}

	c.Rewrite(get("/"), affinity.Pin{Backend: "b9"}) // not the result of Find
	if got := m2.told[2]; got != (affinity.Pin{}) {
		t.Errorf("member 2 was told %+v", got)
	}
}

// A pin that one member alone has found costs nothing to be told apart.
func TestChainTellsWhoFoundTheOnlyPin(t *testing.T) { // not parallel: it counts allocations
	pin := affinity.Pin{Backend: "b1", Key: "k", Status: affinity.Hit}
	for _, tt := range []struct {
		name string
		pins [2]affinity.Pin
	}{
		{"nobody", [2]affinity.Pin{}},
		{"the first", [2]affinity.Pin{pin, {}}},
		{"the second", [2]affinity.Pin{{}, pin}},
		{"the second, and nothing but a status", [2]affinity.Pin{{}, {Status: affinity.Forged}}},
	} {
		m := [2]*goneHandler{{member{pin: tt.pins[0]}}, {member{pin: tt.pins[1]}}}
		c := affinity.Chain{m[0], m[1]}
		r := get("/")
		if n := testing.AllocsPerRun(100, func() { _, _ = c.Find(r) }); n > 0 {
			t.Errorf("%s: Find makes %v allocations", tt.name, n)
		}
		found := find(t, c, r)
		c.Rewrite(get("/"), found)
		if _, err := c.Bind(to("b2", &http.Response{Request: r}, found)); err != nil {
			t.Error(err)
		}
		for i, m := range m {
			if want := tt.pins[i]; len(m.told) != 2 || m.told[0] != want || m.told[1] != want {
				t.Errorf("%s: member %d was told %+v, want %+v", tt.name, i+1, m.told, want)
			}
		}
	}
}

func TestChainGone(t *testing.T) {
	t.Parallel()
	fixed := affinity.Pin{Backend: "b1", Fixed: true}
	for _, tt := range []struct {
		name  string
		chain affinity.Chain
		want  string
	}{
		{"the one with the home answers", affinity.Chain{&member{}, &goneHandler{member{pin: fixed}}}, "b1"},
		{"it has no answer", affinity.Chain{&member{pin: fixed}, &goneHandler{member{pin: fixed}}}, ""},
		{"the home isn't fixed", affinity.Chain{&goneHandler{member{pin: affinity.Pin{Backend: "b1"}}}}, ""},
		{"no home", affinity.Chain{&goneHandler{}}, ""},
	} {
		r := get("/")
		got := ""
		if res := tt.chain.Gone(r, find(t, tt.chain, r)); res != nil {
			got = res.Status
		}
		if got != tt.want {
			t.Errorf("%s: Gone = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestValidateReachesAllParts(t *testing.T) {
	t.Parallel()
	addr := &affinity.ClientAddr{V4: 33}
	err := affinity.Chain{
		&affinity.Hash{Key: addr},
		nil,
		&affinity.Table{Name: "a:b", Store: &affinity.LRU{Size: -5}},
		&affinity.CookieMap{Name: "a b"},
		&affinity.CookieMap{Name: "server"},
		&affinity.Cookie{Secrets: [][]byte{{1}}},
	}.Validate()
	if err == nil {
		t.Fatal("Validate = nil")
	}
	for _, want := range []string{"/33", "nil", `"a:b"`, "size -5", `"a b"`, "no backends", "secret 0"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Validate doesn't say %q: %v", want, err)
		}
	}
	good := affinity.Chain{
		&affinity.Hash{}, &affinity.Table{Name: "ip"}, &affinity.Cookie{Secrets: testSecrets},
		&affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "b1"}, Client: &affinity.ClientAddr{V4: 24}},
	}
	if err := good.Validate(); err != nil {
		t.Errorf("Validate = %v", err)
	}
}
