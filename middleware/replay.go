package middleware

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// A replay is a request's body that may be sent more than once: it keeps the
// first bytes that an attempt reads, so that the next attempt can read them
// again. Once more than its limit has been read it keeps nothing, and the body
// can't be replayed.
//
// A failed attempt may still be blocked in a Read on the client when the next
// one starts. Nobody waits for that Read, nor ends it, since a server's body can't
// be read on after that: what it brings is kept too, so no byte goes missing. Only
// stop ends it, when no attempt is to follow.
type replay struct {
	src     io.ReadCloser
	limit   int                      // how many bytes are kept
	max     int64                    // how many there may be, 0 for any number
	rc      *http.ResponseController // whose read deadline ends a read of src; nil: nothing does
	touches bool                     // a read of src may touch the client's ResponseWriter
	h2      bool                     // src is an HTTP/2 server's own: the first read may send a 100, and Close ends a read

	given      http.Header // the client's trailers, which have their values when src has ended
	connection []string    // the client's Connection field
	trailer    http.Header // the trailers of the outgoing request, nil for none

	reading sync.Mutex // held while src is read

	mu      sync.Mutex
	latest  *replayReader // the attempt that may read; nil: none, the request needs no more of src
	buf     []byte
	dropped bool  // more than limit was read, and buf is gone
	n       int64 // bytes of src that were read
	err     error // src's last word
	stopped bool  // a read of src was ended, or would have been
}

// newReplay returns the body of out, which is sent for in, and has out's trailers
// follow it. It is nil if there is none.
func newReplay(r *router, in, out *http.Request) *replay {
	if out.Body == nil || out.Body == http.NoBody {
		return nil
	}
	p := &replay{src: out.Body, limit: r.retry.Body, max: r.maxBody, given: in.Trailer, connection: in.Header["Connection"], trailer: announced(in)}
	out.Trailer = p.trailer
	return p
}

var errReplay = errors.New("the request's body can't be read again")

// open returns the body from its start for a new attempt, and ends the reader
// of the attempt before. It fails when the start is no longer kept.
func (p *replay) open() (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped {
		return nil, errReplay
	}
	p.latest = &replayReader{body: p}
	return p.latest, nil
}

// again reports whether one more attempt can read the whole body.
func (p *replay) again() bool {
	if p == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.dropped
}

// complete reports whether src was read to its end, and isn't read any more.
func (p *replay) complete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err == io.EOF
}

// busy reports whether an informational answer may not be written now.
func (p *replay) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.touches && p.err != io.EOF || p.h2 && p.n == 0 && p.err == nil
}

// stop ends the last attempt's reader and returns when src is read no more. A read
// that is blocked on the client is interrupted at that time, unless the client's
// connection can't do that.
func (p *replay) stop(at time.Time) {
	p.mu.Lock()
	p.latest = nil
	whole := p.err == io.EOF
	p.stopped = p.stopped || !whole
	p.mu.Unlock()
	if !whole && p.rc.SetReadDeadline(at) != nil && p.h2 { // the writer is hidden
		_ = p.src.Close()
	}
	p.reading.Lock()
	defer p.reading.Unlock()
}

// past is a deadline that ends what is under way at once.
var past = time.Unix(1, 0)

// lingering is how long a connection stays open behind an early answer: closing
// it while the client still sends would be a reset, which can overtake the answer.
const lingering = 500 * time.Millisecond

// join stops, and leaves the client's connection to the server.
func (p *replay) join() {
	p.stop(past)
	if p.stopped {
		_ = p.rc.SetReadDeadline(time.Now().Add(lingering))
	}
}

// grace is how long a read may take to return that has failed already.
const grace = 50 * time.Millisecond

// reason returns why a request failed, given err: net/http takes any failure to read
// from an HTTP/1 client for one that went away, and ends the request's context,
// although the client may just have been late (http.Server.ReadTimeout). It stops.
func (p *replay) reason(err error) error {
	if p == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	until := time.Now().Add(grace)
	p.stop(until)
	p.mu.Lock()
	defer p.mu.Unlock()
	if errors.Is(p.err, os.ErrDeadlineExceeded) && time.Now().Before(until) {
		return p.err
	}
	return err
}

// outlive returns a context that ends with ctx, but not when that ends because a
// read of an HTTP/1 client was stopped.
func (p *replay) outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.stopped {
			cancel(context.Cause(ctx))
		}
	})
	return own, func() {
		unhook()
		cancel(nil)
	}
}

// A bodyError is a failure to read what the client sends.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "reading the request's body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// A replayReader is one attempt's view of the body. It is a balancer.Interrupter: a
// Read that outlasts its attempt does no harm.
type replayReader struct {
	body *replay
	off  int
}

func (r *replayReader) Read(b []byte) (int, error) {
	p := r.body
	if n, err := r.kept(b); n > 0 || err != nil {
		return n, err
	}
	p.reading.Lock()
	defer p.reading.Unlock()
	if n, err := r.kept(b); n > 0 || err != nil { // what another attempt's Read has brought
		return n, err
	}
	n, err := p.src.Read(b)
	return r.keep(b[:n], err)
}

// kept reads what is kept, or why there is no more. It returns 0 and nil if src has to
// be read.
func (r *replayReader) kept(b []byte) (int, error) {
	p := r.body
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.latest == nil:
		return 0, http.ErrBodyReadAfterClose
	case p.latest != r:
		return 0, errReplay
	case r.off < len(p.buf):
		n := copy(b, p.buf[r.off:])
		r.off += n
		return n, nil
	}
	p.follow()
	return 0, p.err
}

// keep notes what a read of src has brought, and returns what of it is for r.
func (r *replayReader) keep(b []byte, err error) (int, error) {
	p := r.body
	p.mu.Lock()
	defer p.mu.Unlock()
	if over := p.n + int64(len(b)) - p.max; p.max > 0 && over > 0 {
		b, err = b[:len(b)-int(over)], &http.MaxBytesError{Limit: p.max}
	}
	p.n += int64(len(b))
	switch {
	case p.dropped:
	case p.latest == r && len(p.buf)+len(b) > p.limit:
		p.dropped, p.buf = true, nil
	default: // for the next attempt too, which may have begun: then whatever the limit
		p.buf = append(p.buf, b...)
		r.off += len(b)
	}
	if err == io.EOF {
		if bad := checkTrailer(p.given); bad != nil {
			err = bad
		}
	}
	if err != nil && err != io.EOF {
		err = &bodyError{err}
	}
	p.err = err
	switch {
	case p.latest == r:
		p.follow()
	case p.latest == nil && err != nil: // by having been stopped, or as good as that
		err = http.ErrBodyReadAfterClose
	}
	return len(b), err
}

// follow has the trailers that may pass follow the end of src, once one was announced.
func (p *replay) follow() {
	if p.err != io.EOF || p.trailer == nil {
		return
	}
	for name, values := range p.given {
		if inTrailer(name, p.connection) {
			p.trailer[name] = values
		}
	}
}

// Interrupt ends this attempt, as Close does. balancer.Transport calls it.
func (r *replayReader) Interrupt() { _ = r.Close() }

// Close ends this attempt only: src is the server's to close.
func (r *replayReader) Close() error {
	p := r.body
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latest == r {
		p.latest = nil
	}
	return nil
}
