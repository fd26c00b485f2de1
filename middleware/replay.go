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

// A replay is a request's body that may be sent more than once. It keeps the bytes that
// an attempt reads, so that the next attempt can read them again. Once more than limit
// bytes were read it keeps nothing, and the body can't be sent again.
//
// A failed attempt may still be blocked in a Read of src, waiting for the client, when
// the next attempt starts. Nobody waits for that Read, and nobody interrupts it, since a
// server's body can't be read any more after an interrupted Read. The bytes that it
// returns are kept for the next attempt, so that none is lost. Only stop interrupts it,
// when no attempt will follow.
//
//	state      latest   who may read src          ends with
//	open       reader   that reader               open (the next attempt), Close, stop
//	released   nil      nobody, or dropRest       open, stop
//	at its end reader   nobody: err is set        open, while the bytes are kept
//	stopped    nil      nobody, for good          -
//
// Two locks order it. reading is held during a Read of src, which may last as long as the
// client likes. mu guards the fields below it and is held only for moments. A Read takes
// reading first and mu within it. The transport's goroutines call Read, Interrupt and
// Close. dropRest's own goroutine reads src once no attempt does. The handler's goroutine
// calls the rest. A body that the server has read ahead is at its end from the beginning:
// see takeReadAhead.
type replay struct {
	src     io.ReadCloser
	limit   int                      // how many bytes are kept
	max     int64                    // how many there may be, 0 for any number
	rc      *http.ResponseController // its read deadline interrupts a Read of src; nil with Sticky, which never stops
	touches bool                     // a Read of src may touch the client's ResponseWriter
	h2      bool                     // src is an HTTP/2 server's own: its first Read may send a 100
	closes  bool                     // Close of src interrupts a Read, as that of an HTTP/2 server's body does

	given      http.Header // the client's trailers, whose values are there when src has ended
	connection []string    // the client's Connection field
	trailer    http.Header // the trailers of the outgoing request, nil for none

	reading sync.Mutex // held while src is read

	mu      sync.Mutex
	latest  *replayReader // the reader of the latest attempt; nil: nobody needs more of src
	first   replayReader  // the reader of the first attempt, to save an allocation
	buf     []byte
	dropped bool  // more than limit was read, and buf is gone
	n       int64 // bytes of src that were read
	err     error // that src returned last
	stopped bool  // stop was called before src had ended
	watched bool  // the rest of src is read and dropped once no attempt reads it
	drops   bool  // that has begun

	over chan struct{} // what awaitEnd has returned, until it is closed; mu guards it
}

// newReplay returns the body of out, the outgoing request for in, and announces in out
// the trailers that may follow it. It returns nil if out has no body.
func newReplay(r *router, in, out *http.Request) *replay {
	if out.Body == nil || out.Body == http.NoBody {
		return nil
	}
	p := &replay{src: out.Body, limit: r.retry.Body, max: r.maxBody, given: in.Trailer, connection: in.Header["Connection"], trailer: announced(in)}
	out.Trailer = p.trailer
	p.takeReadAhead(out.ContentLength)
	return p
}

var errReplay = errors.New("the request's body can't be read again")

// open returns a reader of the whole body for a new attempt. The reader of the attempt
// before returns errors from then on. open fails when the start isn't kept any more.
func (p *replay) open() (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped {
		return nil, errReplay
	}
	if p.latest = &p.first; p.first.body != nil {
		p.latest = &replayReader{}
	}
	p.latest.body = p
	return p.latest, nil
}

// again reports whether open would succeed. A request without a body can always be sent
// again.
func (p *replay) again() bool {
	if p == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.dropped
}

// received returns how many bytes of src were read.
func (p *replay) received() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

// complete reports whether src was read to its end.
func (p *replay) complete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err == io.EOF
}

// awaitEnd returns a channel that is closed when the last attempt reads src no more,
// because it has read all of it or wants no more of it. It is nil if that is so already.
// After a failure to read src the channel stays open: the attempt's answer fails too.
func (p *replay) awaitEnd() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == io.EOF || p.err == nil && p.latest == nil {
		return nil
	}
	p.over = make(chan struct{})
	return p.over
}

// end closes the channel of awaitEnd, if there is one. The caller holds mu.
func (p *replay) end() {
	if p.over != nil {
		close(p.over)
		p.over = nil
	}
}

// busy reports whether an informational answer must not be written now, as the rule of one
// writer has it (writer.go).
func (p *replay) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.touches && p.err != io.EOF || p.h2 && p.n == 0 && p.err == nil
}

// stop ends the latest attempt's reader and returns when no Read of src is under way. A
// Read that waits for the client is interrupted at the time at. If the ResponseWriter is
// hidden, so that no deadline can be set, stop waits for the client, except over HTTP/2.
func (p *replay) stop(at time.Time) {
	p.mu.Lock()
	p.latest = nil
	whole := p.err == io.EOF
	p.stopped = p.stopped || !whole
	p.mu.Unlock()
	if !whole && p.rc.SetReadDeadline(at) != nil && p.closes { // the writer is hidden
		_ = p.src.Close()
	}
	p.reading.Lock()
	defer p.reading.Unlock()
}

// past is a deadline that interrupts a Read at once.
var past = time.Unix(1, 0)

// lingering is how long net/http may go on to read a body that was answered early. If it
// closed the connection while the client sends, the client would get a TCP reset, which
// can overtake the answer.
const lingering = 500 * time.Millisecond

// join stops the reading and hands the client's connection back to the server. The handler
// must not return before: a server's body must not be read after that.
func (p *replay) join() {
	p.stop(past)
	if p.stopped {
		_ = p.rc.SetReadDeadline(time.Now().Add(lingering))
	}
}

// grace is how long reason waits for a Read that has failed already to return.
const grace = 50 * time.Millisecond

// reason returns why a request has failed with err. When a read from an HTTP/1 client
// fails, net/http assumes that the client went away and cancels the request's context. The
// client may only have been slow, so that http.Server.ReadTimeout ended the Read. Then
// reason returns the error of that Read instead of err. It stops the reading.
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

// outlive returns a context that is cancelled with ctx, unless stop was called before.
// When stop interrupts a read from an HTTP/1 client, net/http cancels the request's
// context, and the answer that is being read from the backend would break off.
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

// A replayReader is one attempt's reader of the body. It implements
// [balancer.Interrupter]: the replay keeps the bytes of a Read that outlasts its attempt.
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

// kept copies bytes that are kept to b, or returns the error after which there are none.
// It returns 0 and nil if src has to be read.
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

// keep stores what a Read of src has returned, and returns what r's Read returns for it.
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
	default: // also beyond the limit if the next attempt has begun, which needs the bytes
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
	if err == io.EOF {
		p.end()
	}
	switch {
	case p.latest == r:
		p.follow()
	case p.latest == nil && err != nil: // stopped or released: the error is none of the client's
		err = http.ErrBodyReadAfterClose
	}
	return len(b), err
}

// follow copies the client's trailers that may pass to the outgoing request, at the end of
// src. It does so only if one was announced: others can't be sent.
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

// Buffered returns how many bytes can be read without waiting for the client, as that of a
// [bufio.Reader] does. balancer.Transport calls it.
func (r *replayReader) Buffered() int {
	p := r.body
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latest != r {
		return 0
	}
	return len(p.buf) - r.off
}

// Interrupt ends this attempt's reading, as Close does. balancer.Transport calls it.
func (r *replayReader) Interrupt() { _ = r.Close() }

// Close ends this attempt's reading. It doesn't close src, which the server does.
func (r *replayReader) Close() error {
	p := r.body
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latest == r {
		p.latest = nil
		if p.err == nil {
			p.end()
		}
		p.dropRest()
	}
	return nil
}

// watchClient has the rest of src read and dropped once no attempt reads it any more.
// net/http notices that an HTTP/1 client has left only while the request's body is read,
// or after its end. Without a reader an answer that lasts, such as an event stream, would
// go on without its client for as long as the backend likes.
//
// It is called when the header of the answer has been sent: until then a Read of the
// server's body might write a 100. HTTP/2's server notices by itself, and any other body
// isn't read beside an answer.
func (p *replay) watchClient() {
	if p == nil || p.touches || p.closes {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watched = true
	p.dropRest()
}

// dropRest starts to read and drop the rest of src, if it is time. The caller holds mu.
func (p *replay) dropRest() {
	if !p.watched || p.drops || p.latest != nil || p.err != nil || p.stopped {
		return
	}
	p.drops = true
	go func() { // it ends with src, or with stop
		p.reading.Lock()
		defer p.reading.Unlock()
		room := make([]byte, 512)
		for p.dropSome(room) {
		}
	}()
}

// dropSome reads src once and reports whether there may be more to drop. The caller holds
// reading.
func (p *replay) dropSome(room []byte) bool {
	p.mu.Lock()
	stopped := p.stopped
	p.mu.Unlock()
	if stopped {
		return false
	}
	n, err := p.src.Read(room)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n += int64(n)
	p.err = err
	return err == nil && (p.max == 0 || p.n <= p.max)
}
