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
// one starts. What that Read brings is kept too, so no byte goes missing.
type replay struct {
	src   io.ReadCloser
	limit int
	rc    *http.ResponseController // whose read deadline ends a read of src; nil: nothing does

	reading sync.Mutex // held while src is read

	mu          sync.Mutex
	latest      *replayReader // the attempt that may read; nil once the request is over
	buf         []byte
	dropped     bool  // more than limit was read, and buf is gone
	err         error // src's last word
	interrupted bool  // the read deadline has passed on purpose
	cut         bool  // and that at some time
}

var (
	errReplay      = errors.New("the request's body can't be read again")
	errInterrupted = errors.New("reading the request's body was given up")
)

// open returns the body from its start for a new attempt, and ends the reader
// of the attempt before. It fails when the start is no longer kept.
func (p *replay) open() (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped {
		return nil, errReplay
	}
	if p.interrupted {
		p.interrupted = false
		_ = p.rc.SetReadDeadline(time.Time{})
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

// answerEarly prepares w for an answer that comes before the end of the body, if
// it does. net/http would read on before the answer's first byte, and a client
// that waits for the answer would wait for ever. With full duplex it doesn't, but
// then it must not take what is left of the body for the client's next request.
func (p *replay) answerEarly(w http.ResponseWriter, r *http.Request) {
	if p == nil || r.ProtoMajor != 1 || p.complete() {
		return
	}
	_ = p.rc.EnableFullDuplex()
	w.Header().Set("Connection", "close")
}

func (p *replay) complete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err == io.EOF
}

// lingering is how long a connection stays open behind an early answer: closing
// it while the client still sends would be a reset, which can overtake the answer.
const lingering = 500 * time.Millisecond

// join ends the last reader and waits until nobody reads src any more. A read
// that is blocked on the client is interrupted.
func (p *replay) join() {
	p.mu.Lock()
	p.latest = nil
	whole := p.err == io.EOF
	if !whole {
		_ = p.rc.SetReadDeadline(past)
	}
	p.mu.Unlock()
	p.reading.Lock()
	defer p.reading.Unlock()
	if !whole {
		_ = p.rc.SetReadDeadline(time.Now().Add(lingering))
	}
}

// past is a deadline that ends what is under way at once.
var past = time.Unix(1, 0)

// A bodyError is a failure to read what the client sends.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "reading the request's body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// A replayReader is one attempt's view of the body.
type replayReader struct {
	body *replay
	off  int
}

func (r *replayReader) Read(b []byte) (int, error) {
	p := r.body
	p.reading.Lock()
	defer p.reading.Unlock()
	p.mu.Lock()
	switch {
	case p.latest != r:
		p.mu.Unlock()
		return 0, errReplay
	case r.off < len(p.buf):
		n := copy(b, p.buf[r.off:])
		r.off += n
		p.mu.Unlock()
		return n, nil
	case p.err != nil:
		p.mu.Unlock()
		return 0, p.err
	}
	p.mu.Unlock()

	n, err := p.src.Read(b)

	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.dropped:
	case p.latest == r && len(p.buf)+n > p.limit:
		p.dropped, p.buf = true, nil
	default: // for the next attempt too, which may have begun: then whatever the limit
		p.buf = append(p.buf, b[:n]...)
		r.off += n
	}
	if p.interrupted && errors.Is(err, os.ErrDeadlineExceeded) {
		return n, errInterrupted
	}
	if err != nil && err != io.EOF {
		err = &bodyError{err}
	}
	p.err = err
	return n, err
}

// Interrupt ends a Read that is blocked on the client: the attempt has failed, and
// net/http would wait for its body's reader. balancer.Transport calls it.
func (r *replayReader) Interrupt() {
	p := r.body
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latest == r && p.rc != nil && p.err == nil {
		p.interrupted, p.cut = true, true
		_ = p.rc.SetReadDeadline(past)
	}
}

// outlives reports whether err is the reason of a failed attempt although ctx, the
// request's, has ended: net/http takes an interrupted read for a client that went
// away, and ends it.
func (p *replay) outlives(ctx context.Context, err error) bool {
	if p == nil || errors.Is(err, ctx.Err()) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.interrupted
}

// wasCut reports whether the end of the request's context may be the doing of an
// earlier attempt's Interrupt, although the client is there.
func (p *replay) wasCut() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut
}

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
