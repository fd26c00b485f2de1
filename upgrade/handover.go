package upgrade

import (
	"errors"
	"fmt"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

// ErrMoved is the Err in the [Summary] of a tunnel that goes on in another process: see
// [Frozen.Moved]. Its connections aren't closed.
var ErrMoved = errors.New("moved to another process")

// A Frozen is a tunnel that nobody reads or writes, so that another process can go on with it.
// Until Resume or Moved is called, once, Close, CloseGracefully and Send wait. The peers notice
// nothing but a pause.
type Frozen struct {
	Tunnel *Tunnel
	Record []byte // what [ParseRecord] reads
	Files  [2]int // the sockets of client and backend, which stay the tunnel's

	engine freezer
}

// A freezer is the engine of a frozen tunnel.
type freezer interface {
	resume()
	moved()
}

// Resume has the tunnel go on here, and carries out what was asked of it meanwhile.
func (f *Frozen) Resume() { f.engine.resume() }

// Moved ends the tunnel here, without a byte to its ends: another process has its
// sockets, and goes on. Functions that are called at the tunnel's end get [ErrMoved]. A Close
// that has come meanwhile is lost.
func (f *Frozen) Moved() { f.engine.moved() }

// Freeze freezes all tunnels that another process can go on with: those on an event loop,
// without TLS, that aren't closing. It leaves out those that a Send is writing to or waits for.
// On other systems than Linux there are none.
func (p *Proxy) Freeze() (all []*Frozen) {
	for t := range p.Tunnels() {
		t.mu.Lock()
		engine := t.engine
		t.mu.Unlock()
		if e, ok := engine.(interface {
			freeze(age time.Duration) *Frozen
		}); ok {
			if f := e.freeze(p.ageOf(t)); f != nil {
				all = append(all, f)
			}
		}
	}
	return all
}

// Movable returns the number of tunnels that another process can go on with, now or in a
// moment. Those that aren't served yet count.
func (p *Proxy) Movable() (n int) {
	for t := range p.Tunnels() {
		t.mu.Lock()
		engine, opens := t.engine, t.engine == nil && !t.ended
		t.mu.Unlock()
		if opens || movable(engine) {
			n++
		}
	}
	return n
}

// movable reports whether the tunnel of an engine could be frozen, now or in a moment.
func movable(e engine) bool {
	m, ok := e.(interface{ movable() bool })
	return ok && m.movable()
}

// A Record is what another process needs to know of a tunnel to go on with it. Its times count
// from when it was made.
type Record struct {
	Group string  // as in [ConnectOptions]
	Key   string  // the same
	Turn  float64 // the same

	websocket bool
	jitter    float64 // see Tunnel.ageJitter
	age       time.Duration
	silent    time.Duration // since when no byte has come
	unspoken  time.Duration // the same, from the backend
	asked     time.Duration // when the client has sent its last message; 0: never
	answered  bool          // the backend has sent one since
	stalled   time.Duration // for how long the client has taken nothing
	full      time.Duration // in how long the bucket of MessageRate is full
	flows     [2]flowRecord // by direction
	course    *courseRecord // nil before its first event
}

// A flowRecord is the state of one direction.
type flowRecord struct {
	frames frames // without its limit
	bytes  int64
	wait   []byte // for room at the destination
	fed    int    // how many bytes of wait frames has tracked
	fin    bool
}

// A courseRecord is the course of a tunnel that isn't closing.
type courseRecord struct {
	phases    [2]phase
	ended     [2]bool
	closeSeen bool
	known     bool
	by        Side
	closeCode int
	reason    string
	err       string
	quiet     time.Duration
	quietIn   time.Duration // when that is over
	quietly   bool          // one direction is over, so that quiet counts
}

// ParseRecord returns the record that is in b.
func ParseRecord(b []byte) (*Record, error) {
	r := &Record{}
	c := recordCodec{b: b, reads: true}
	r.code(&c)
	if c.failed || len(c.b) > 0 {
		return nil, errors.New("upgrade: what should be the record of a tunnel isn't one")
	}
	return r, nil
}

// append appends the record to b.
func (r *Record) append(b []byte) []byte {
	c := recordCodec{b: b}
	r.code(&c)
	return c.b
}

// Adopt goes on with a tunnel of another process, whose sockets are files. They are the
// tunnel's from now on, whatever Adopt returns. Group, Key and Turn of opts take the place of
// those of the record. The tunnel counts from its beginning in the other process: its age, its
// bytes and its messages. The limits are those of this Proxy. If it limits or counts messages,
// a tunnel whose messages can't be counted any more ends with 1002, and what has passed of a
// message isn't counted, unless the other process has counted it.
//
// An error means that no tunnel could be added, as after [Proxy.Shutdown]. The sockets are
// closed then, and Closed of opts isn't called. On other systems than Linux there is always one.
func (p *Proxy) Adopt(r *Record, files [2]int, opts ConnectOptions) (*Tunnel, error) {
	t := &Tunnel{proxy: p, opts: opts, ageJitter: float32(r.jitter)}
	t.mu.Lock() // whoever finds t among the tunnels waits until it has an engine, or has ended
	if !p.adopt(t, r.age) {
		t.mu.Unlock()
		closeFiles(files)
		return nil, fmt.Errorf("upgrade: adopt: %w", ErrClosed)
	}
	engine, err := p.loops.adopt(r, files, t)
	if err == nil {
		t.engine = engine
	} else {
		t.opening, t.ended = &opening{}, true // as of a tunnel that was never served
	}
	t.mu.Unlock()
	if err != nil {
		closeFiles(files)
		p.forget(t)
		p.remove()
		return nil, fmt.Errorf("upgrade: adopt: %w", err)
	}
	for d := range r.flows {
		if limit := p.frames(r.websocket, direction(d).from()).limit; limit != 0 && r.flows[d].frames.off {
			t.Close(closecode.ProtocolError, "protocol error")
		}
	}
	p.watch(t)
	return t, nil
}

// Open returns the number of tunnels, and of calls of Connect that are under way.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}
