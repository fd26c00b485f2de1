package hostile_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A row is a request, and what may become of it.
//
// In send \n is CR LF; ␍, ␊ and ␀ are CR, LF and NUL alone. The client waits for an
// answer at ␆, ends its sending at ␄ and leaves at ✂.
//
// reaches is the request as the backend may read it, as message.text writes it and
// without what the gateway says about the client. Two requests are parted by ¶, and
// what one may be instead by ‖; one that ends in … may come only without its end.
// A request that is refused doesn't reach the backend at all, or without its end.
//
// back has the endings that are safe, parted by |.
type row struct{ name, send, reaches, back string }

func (r row) run(t *testing.T, to rig) {
	c := dial(t, to.addr)
	defer c.Close()
	answers := c.speak(t, r.send, r.back)
	c.Close()
	left := strings.HasSuffix(r.send, "✂") || strings.HasSuffix(r.send, "␄") && len(answers) == 0
	raw := to.conclude(t, r.reaches, answers, left)
	if t.Failed() {
		t.Logf("sent %q\nthe client read %q\nthe backend read %q", wire(r.send), c.raw.String(), raw)
	}
}

// conclude sends canaries, and then checks what has reached the backend. It returns
// all that, canaries included.
func (r rig) conclude(t *testing.T, reaches string, answers []*message, left bool) (raw string) {
	t.Helper()
	canariesOn(t, r.addr)
	r.settle(t)
	got, raw, fault := r.backend.forget()
	if fault != nil {
		t.Errorf("the backend read %v", fault)
	}
	whole := check(t, got, strings.ReplaceAll(reaches, "{backend}", r.backend.addr))
	if left {
		return raw // to a client that has left no answer may arrive
	}
	var served []string
	for _, m := range answers {
		switch status := m.status(); {
		case status == "101":
			served = append(served, whole...)
		case status[0] == '2' && m.body == "" && len(served) < len(whole): // to HEAD
			served = append(served, whole[len(served)])
		case status[0] == '2':
			served = append(served, m.body)
		}
	}
	if !slices.Equal(whole, served) {
		t.Errorf("answers %q to the requests that were served: %q", served, whole)
	}
	return raw
}

// check compares what reached the backend with what may. It returns the answers
// that belong to the requests that came whole.
func check(t *testing.T, got []*message, reaches string) (whole []string) {
	t.Helper()
	var may []string
	if reaches != "" {
		may = strings.Split(reaches, "¶")
	}
	for i, m := range got {
		if i == len(may) {
			t.Errorf("a request reached the backend: %q", m.text(m.own()))
			break
		}
		text := m.text(m.own())
		fits := func(want string) bool {
			want, broken := strings.CutSuffix(want, "…")
			return !m.cut && !broken && text == want || m.cut && strings.HasPrefix(want, text)
		}
		if !slices.ContainsFunc(strings.Split(may[i], "‖"), fits) {
			t.Errorf("reached the backend (cut: %t):\n%q, may be\n%q", m.cut, text, may[i])
		}
		if m.cut {
			continue
		}
		whole = append(whole, m.echo())
		for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"} {
			if n := len(m.get(name)); n != 1 {
				t.Errorf("the backend is told about the client %d times by %s", n, name)
			}
		}
	}
	return whole
}

// A rig is a gateway with one backend.
type rig struct {
	addr    string
	pool    *balancer.Pool
	backend *backend
}

func newRig(t *testing.T) rig {
	b := newBackend(t)
	srv, pool := gateway(t, b.addr, func() {})
	return rig{srv.Listener.Addr().String(), pool, b}
}

// settle waits until the gateway has no connection to the backend: nothing more
// can come over one then.
func (r rig) settle(t *testing.T) {
	t.Helper()
	late := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		r.pool.Transport().CloseIdleConnections()
		if r.backend.open() == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Error("a connection to the backend stays in use")
			return
		}
	}
}
