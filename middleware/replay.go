package middleware

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
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
	limit    int
	src      io.ReadCloser
	kept     atomic.Bool // buf still holds everything read from src
	complete atomic.Bool // src was read to its end
	latest   atomic.Pointer[replayReader]

	mu  sync.Mutex // held while src is read
	buf []byte
	err error // src's last word
}

var errReplay = errors.New("the request's body can't be read again")

func newReplay(src io.ReadCloser, limit int) *replay {
	p := &replay{src: src, limit: limit}
	p.kept.Store(true)
	return p
}

// open returns the body from its start for a new attempt, and ends the reader
// of the attempt before. It fails when the start is no longer kept.
func (p *replay) open() (io.ReadCloser, error) {
	if !p.again() {
		return nil, errReplay
	}
	r := &replayReader{body: p}
	p.latest.Store(r)
	return r, nil
}

// again reports whether one more attempt can read the whole body.
func (p *replay) again() bool { return p == nil || p.kept.Load() }

// answerEarly prepares w for an answer that comes before the end of the body, if
// it does. net/http would read on before the answer's first byte, and a client
// that waits for the answer would wait for ever. With full duplex it doesn't, but
// then it must not take what is left of the body for the client's next request.
func (p *replay) answerEarly(w http.ResponseWriter, r *http.Request) {
	if p == nil || p.complete.Load() || r.ProtoMajor != 1 {
		return
	}
	_ = http.NewResponseController(w).EnableFullDuplex()
	w.Header().Set("Connection", "close")
}

// lingering is how long a connection stays open behind an early answer: closing
// it while the client still sends would be a reset, which can overtake the answer.
const lingering = 500 * time.Millisecond

// join ends the last reader and waits until nobody reads src any more. A read
// that is blocked on the client is interrupted.
func (p *replay) join(rc *http.ResponseController) {
	p.latest.Store(nil)
	if !p.mu.TryLock() {
		_ = rc.SetReadDeadline(time.Unix(1, 0))
		p.mu.Lock()
	}
	p.mu.Unlock()
	if !p.complete.Load() {
		_ = rc.SetReadDeadline(time.Now().Add(lingering))
	}
}

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
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latest.Load() != r {
		return 0, errReplay
	}
	if p.kept.Load() {
		if r.off < len(p.buf) {
			n := copy(b, p.buf[r.off:])
			r.off += n
			return n, nil
		}
		if room := p.limit - len(p.buf); room <= 0 {
			p.kept.Store(false)
			p.buf = nil
		} else if len(b) > room {
			b = b[:room]
		}
	}
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.src.Read(b)
	if p.kept.Load() {
		p.buf = append(p.buf, b[:n]...)
	}
	r.off += n
	switch err {
	case nil:
	case io.EOF:
		p.complete.Store(true)
	default:
		err = &bodyError{err}
	}
	p.err = err
	return n, err
}

// Close ends this attempt only: src is the server's to close.
func (r *replayReader) Close() error {
	r.body.latest.CompareAndSwap(r, nil)
	return nil
}
