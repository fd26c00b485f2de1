package hub_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/browser"
)

// page writes down what its client hears, all of it in one array.
const page = `<!doctype html><script type="module">
import { Connection } from '/limpet.js';
window.log = [];
window.limpet = new Connection(() => window.address ? address() : '/ws', { least: 20, most: 200 });
for (const type of ['open', 'close', 'message', 'missed', 'joined', 'left'])
	limpet.addEventListener(type, (e) => log.push(e));
window.heard = (room) => log.filter((e) => e.type === 'message' && e.room === room).map((e) => e.data);
window.told = (type, room) => log.filter((e) => e.type === type && e.room === room).length;
</script>`

// site serves the page, and WebSockets of the hub that is current.
type site struct {
	*httptest.Server
	current atomic.Pointer[http.Handler]
	mu      sync.Mutex
	conns   []net.Conn // those that were taken over
}

func newSite(t *testing.T) *site {
	s := &site{}
	mux := http.NewServeMux()
	mux.Handle("/limpet.js", hub.Client())
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) { (*s.current.Load()).ServeHTTP(w, r) })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, page) })
	s.Server = httptest.NewUnstartedServer(mux)
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateHijacked {
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// use makes a hub the current one.
func (s *site) use(h *hub.Hub, rooms ...string) {
	handler := h.Handler(&hub.HandlerOptions{
		Member:  func(*http.Request) (hub.MemberOptions, error) { return hub.MemberOptions{Rooms: rooms}, nil },
		Message: func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
		Ping:    200 * time.Millisecond,
	})
	s.current.Store(&handler)
}

// cut closes all WebSockets without a close frame.
func (s *site) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

func TestClient(t *testing.T) {
	t.Parallel()
	chromium := browser.Start(t)
	t.Run("comes back", func(t *testing.T) { comesBack(t, chromium) })
	t.Run("notices silence", func(t *testing.T) { noticesSilence(t, chromium) })
	t.Run("names too much", func(t *testing.T) { namesTooMuch(t, chromium) })
	t.Run("backs off", func(t *testing.T) { backsOff(t, chromium) })
	t.Run("has no address", func(t *testing.T) { hasNoAddress(t, chromium) })
	t.Run("answers", func(t *testing.T) { answersQuestions(t, chromium) })
	t.Run("compresses", func(t *testing.T) { compresses(t, chromium) })
}

// A page whose connections break, and whose node ends, gets each message once and in order,
// and is told what it can't get.
func comesBack(t *testing.T, chromium *browser.Browser) {
	s := newSite(t)
	memory := &bus.Memory{History: 100_000}
	opts := &hub.Options{Recover: 100_000}
	first := newHub(t, memory, opts)
	stop := runHub(t, first)
	t.Cleanup(stop)
	second := startHub(t, memory, opts)
	s.use(first, "room", "old")
	p := chromium.Open(t, s.URL)
	p.Read(t, "both rooms", `told('joined', 'room') && told('joined', 'old')`)

	halt := make(chan struct{})
	var sending sync.WaitGroup
	n := 0
	sending.Go(func() { // a hundred messages a second
		for tick := time.NewTicker(10 * time.Millisecond); ; n++ {
			select {
			case <-tick.C:
				send(t, second, inRooms("room"), fmt.Sprint(n))
			case <-halt:
				tick.Stop()
				return
			}
		}
	})
	opens := 1
	for range 3 {
		s.cut()
		opens++
		p.Read(t, "it to come back", fmt.Sprintf(`log.filter((e) => e.type === 'open').length === %d`, opens))
	}
	s.use(second, "room")
	stop()
	p.Read(t, "it to be told of the other room", `told('left', 'old')`)
	p.Read(t, "it to have come back to the one", `told('joined', 'room') === 5`)
	close(halt)
	sending.Wait()
	p.Read(t, "all messages", fmt.Sprintf(`heard('room').length >= %d`, n))
	if got := p.Read(t, "order", `heard('room').every((text, i) => text === String(i)) + ' ' + heard('room').length`); got != fmt.Sprint("true ", n) {
		t.Errorf("%s of %d", got, n)
	}
	p.Read(t, "nothing missing", `!told('missed', 'room') && log.filter((e) => e.type === 'joined' && e.room === 'room').slice(1).every((e) => e.recovered)`)

	p.Run(t, "send", `limpet.send('héllo\n'); limpet.send(new Uint8Array([10, 255]))`)
	p.Read(t, "the answers", `heard(undefined)[0] === 'héllo\n' && String(heard(undefined)[1]) === '10,255'`)

	third := startHub(t, &bus.Memory{History: 10}, opts) // it knows nothing of what was
	s.use(third, "room")
	s.cut()
	p.Read(t, "missed", `told('missed', 'room') === 1 && told('joined', 'room') === 6`)
	fourth := startHub(t, nil, nil) // and this one recovers nothing
	s.use(fourth, "room")
	s.cut()
	p.Read(t, "missed", `told('missed', 'room') === 2 && told('joined', 'room') === 7`)

	p.Run(t, "close", `limpet.close()`)
	await(t, "it to be gone", func() bool { return fourth.Stats().Members == 0 })
}

// A page notices that nothing comes any more, although its connection isn't closed.
func noticesSilence(t *testing.T, chromium *browser.Browser) {
	s := newSite(t)
	var silent http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.use(startHub(t, nil, nil), "room")
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{hub.Protocol}})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		_ = c.Write(r.Context(), websocket.MessageText, []byte(`{"alive":0.1}`))
		<-t.Context().Done()
	})
	s.current.Store(&silent)
	p := chromium.Open(t, s.URL)
	p.Read(t, "it to come back", `told('joined', 'room') && log.some((e) => e.type === 'close' && e.reason === 'nothing has come from the server')`)
}

// A page that is in more rooms than its first message may name comes back all the same. It is
// told that it has missed something in the rooms that it has entered first, and not in the others.
func namesTooMuch(t *testing.T, chromium *browser.Browser) {
	s := newSite(t)
	h := startHub(t, &bus.Memory{History: 10}, &hub.Options{Recover: 10})
	handler := h.Handler(&hub.HandlerOptions{
		Member: func(*http.Request) (hub.MemberOptions, error) {
			return hub.MemberOptions{Rooms: numbers(1, 20)}, nil
		},
		ReadLimit: 200,
	})
	s.current.Store(&handler)
	p := chromium.Open(t, s.URL)
	p.Read(t, "all rooms", `told('joined', '20')`)
	s.cut()
	p.Read(t, "all rooms again", `['1', '9'].every((room) => told('joined', room) === 2)`)
	p.Read(t, "some forgotten", `told('missed', '1') === 1 && told('missed', '9') === 0`)
}

// A page whose server sends it away at once, each time, comes back more and more seldom. Once a
// connection has lasted it is soon back again.
func backsOff(t *testing.T, chromium *browser.Browser) {
	s := newSite(t)
	var full http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{hub.Protocol}})
		if err != nil {
			t.Error(err)
			return
		}
		_ = c.Write(r.Context(), websocket.MessageText, []byte(`{"alive":25}`))
		c.Close(websocket.StatusTryAgainLater, "full")
	})
	s.current.Store(&full)
	p := chromium.Open(t, s.URL)
	const waits = `log.filter((e) => e.type === 'close').map((e) => e.again)`
	p.Read(t, "long waits", waits+`.some((again) => again > 40)`) // the first one is of up to 20 ms
	s.use(startHub(t, nil, nil), "room")
	p.Read(t, "it to come back", `told('joined', 'room') && (window.joined ??= performance.now(), performance.now() - joined > 300)`)
	p.Run(t, "count", `window.before = log.filter((e) => e.type === 'close').length`)
	s.cut()
	p.Read(t, "a short wait", waits+`[before] <= 20`)
}

// A page whose function fails once, such as one that has no token for the moment, asks again.
func hasNoAddress(t *testing.T, chromium *browser.Browser) {
	s := newSite(t)
	s.use(startHub(t, nil, nil), "room")
	p := chromium.Open(t, s.URL)
	p.Read(t, "the room", `told('joined', 'room')`)
	p.Run(t, "no address", `window.address = () => { window.address = undefined; throw new Error('no token') }`)
	s.cut()
	p.Read(t, "it to come back", `told('joined', 'room') === 2 && log.some((e) => e.type === 'close' && e.reason === 'Error: no token')`)
}

// The client is served so that a new version is seen at once.
func TestClientServed(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(hub.Client())
	t.Cleanup(s.Close)
	res, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
	r.Header.Set("If-None-Match", res.Header.Get("ETag"))
	again, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	again.Body.Close()
	if res.StatusCode != 200 || again.StatusCode != 304 || res.Header.Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Errorf("answered with %s and %s, %v", res.Status, again.Status, res.Header)
	}
}
