package http1

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// An interrupter is a balancer.Interrupter.
type interrupter interface{ Interrupt() }

// An upload sends a request with a body, in a goroutine of its own, so that an
// answer which comes before the body's end is heard. It is in one of these states,
// and mu is held in all of them but waiting, reading and detached:
//
//	writing   the header or a piece of the body goes out
//	waiting   for the backend's word, at the gate, with Expect: 100-continue
//	reading   src is read, which may take as long as the client likes
//	detached  nobody wants the request any more, but a Read of src lasts
//	done      it is sent, or has failed, or src wants it to end
//
// Writing and reading alternate until it is done. The goroutine of RoundTrip ends
// it: with the connection closed no writing lasts, the gate is shut for good, and from
// reading it is detached if src is an Interrupter, and waited for otherwise. A
// detached upload has neither connection nor buffer and ends with that Read.
//
// The request's header waits for the first piece of the body, which mostly is
// there already, to go out in one write with it. So that it doesn't wait for a
// client that sends nothing, the goroutine of RoundTrip sends it otherwise.
type upload struct {
	conn  *conn
	src   io.ReadCloser
	trace *httptrace.ClientTrace

	gate      chan bool // with Expect: 100-continue: hears once whether the backend wants the body
	undecided bool      // it hasn't heard yet; for the goroutine of RoundTrip
	goOnAt    time.Time // and that goes on with the body then

	mu         sync.Mutex    // over what the goroutine of RoundTrip has to do with it
	out        *bufio.Writer // nil when it is detached or done
	trailer    http.Header   // to be sent
	srcTrailer http.Header   // the caller's, which has the values when src has ended
	begun      bool          // src was read
	left       int64         // bytes of src, below 0 if that isn't known
	awaited    atomic.Bool   // RoundTrip waits for the answer already

	readErr  error                 // of src
	srcEnded atomic.Bool           // src has no more
	err      atomic.Pointer[error] // why the request can't be sent, unless the backend wants no more of it
	complete bool                  // it was sent; to be read behind done
	done     chan struct{}
}

var (
	errUnwanted = errors.New("the backend answered without asking for the body")
	errDetached = errors.New("the request has ended without its body")
)

// continueTimeout is how long a backend may take to say whether it wants a body:
// not ours to judge, but one that knows nothing of Expect never says.
const continueTimeout = 5 * time.Second

// lastBytes is how long the end of an answer waits for a request whose last bytes
// are on their way, for the sake of the connection: as long as net/http.
const lastBytes = 50 * time.Millisecond

// pieces are buffers for bodies on their way.
var pieces = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// newUpload begins to send the request of c, behind head if that isn't nil and
// net/http doesn't have to write the request.
func newUpload(c *call, head []byte) *upload {
	u := &upload{
		conn: c.conn, src: c.req.Body, trace: c.trace, left: c.req.ContentLength,
		out: writers.Get().(*bufio.Writer), done: make(chan struct{}),
	}
	u.out.Reset(u.conn)
	if expectsContinue(c.req) {
		u.gate, u.undecided, u.goOnAt = make(chan bool, 1), true, time.Now().Add(continueTimeout)
	}
	var req *http.Request
	if head != nil && len(head) <= u.out.Available() { // a longer one could block
		_, _ = u.out.Write(head)
	} else {
		req = u.spelledOut(c)
	}
	u.mu.Lock()
	go u.run(req) // until it is sent, or src fails or ends it, or the connection breaks
	runtime.Gosched()
	u.awaited.Store(true)
	u.flush()
	return u
}

// spelledOut returns the request of c for http.Request.Write, with u for its body.
func (u *upload) spelledOut(c *call) *http.Request {
	req := c.spelledOut()
	req.Body = u
	if req.ContentLength <= 0 {
		// Said so that net/http neither waits for the first byte of some bodies
		// nor sends others, as of a CONNECT, without any framing.
		u.left = -1
		req.ContentLength, req.TransferEncoding = -1, []string{"chunked"}
	}
	if u.srcTrailer = req.Trailer; len(u.srcTrailer) > 0 {
		u.trailer = make(http.Header)
		for name := range u.srcTrailer {
			u.trailer[name] = nil
		}
		req.Trailer = u.trailer
	}
	return req
}

// run sends the request: what is in out and the body, or all of req.
func (u *upload) run(req *http.Request) {
	defer close(u.done)
	defer u.mu.Unlock()
	var err error
	if req == nil {
		err = u.copy()
	} else {
		err = req.Write(uploadWriter{u})
	}
	if u.out == nil { // detached: the connection isn't the call's any more
		return
	}
	if err == nil {
		err = u.out.Flush()
	}
	u.release()
	if u.complete = err == nil; u.complete || u.readErr == errUnwanted || u.readErr == http.ErrBodyReadAfterClose || u.conn.rebuffed() {
		return
	}
	err = cmp.Or(u.conn.writeErr, u.readErr, err) // as it was, not wrapped by net/http
	u.err.Store(&err)
	u.conn.abort()
}

// release gives the buffer back.
func (u *upload) release() {
	u.out.Reset(nil)
	writers.Put(u.out)
	u.out = nil
}

// copy writes a body of known length.
func (u *upload) copy() error {
	defer u.Close()
	piece := pieces.Get().(*[16 << 10]byte)
	defer pieces.Put(piece)
	for {
		n, err := u.Read(piece[:])
		if u.left < 0 || u.left > 0 && err == io.EOF {
			return errors.New("the body isn't as long as ContentLength says")
		}
		if _, failed := (uploadWriter{u}).Write(piece[:n]); failed != nil {
			return failed
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// An uploadWriter is where http.Request.Write writes to. It has none of the methods of a
// bufio.Writer by which that would flush the header, and io.Copy would read into its
// buffer.
type uploadWriter struct{ u *upload }

func (w uploadWriter) Write(b []byte) (int, error) {
	if w.u.out == nil {
		return 0, errDetached
	}
	return w.u.out.Write(b)
}

func (w uploadWriter) WriteByte(b byte) error {
	if w.u.out == nil {
		return errDetached
	}
	return w.u.out.WriteByte(b)
}

func (w uploadWriter) WriteString(s string) (int, error) {
	if w.u.out == nil {
		return 0, errDetached
	}
	return w.u.out.WriteString(s)
}

// flush sends what waits, unless the upload is busy with sending.
func (u *upload) flush() {
	if u.mu.TryLock() {
		if u.out != nil {
			_ = u.out.Flush() // a failure comes up again
		}
		u.mu.Unlock()
	}
}

// Read implements [io.Reader] for http.Request.Write.
func (u *upload) Read(p []byte) (int, error) {
	if u.begun {
		if err := u.out.Flush(); err != nil {
			return 0, err
		}
	}
	n, err := u.read(p)
	if u.out == nil {
		return 0, errDetached
	}
	u.left -= int64(n)
	if err == io.EOF {
		for name, values := range u.srcTrailer { // and what came without having been
			if !frames(name) {
				u.trailer[name] = values
			}
		}
		if bad := validFields("trailer", u.trailer); bad != nil {
			err = bad
		}
	}
	switch {
	case err == io.EOF, err == nil && u.left == 0:
		u.srcEnded.Store(true)
	case err != nil:
		u.readErr = err
	}
	return n, err
}

// read reads src, without mu. The first time it sees to it that the header is sent,
// and asks at the gate.
func (u *upload) read(p []byte) (int, error) {
	first := !u.begun
	u.begun = true
	u.mu.Unlock()
	defer u.mu.Lock()
	if first && u.awaited.Load() {
		u.flush()
	}
	if first && u.gate != nil {
		if u.trace != nil && u.trace.Wait100Continue != nil {
			u.trace.Wait100Continue()
		}
		if !<-u.gate {
			return 0, errUnwanted
		}
	}
	return u.src.Read(p)
}

// Close implements [io.Closer].
func (u *upload) Close() error {
	if u.out == nil { // whoever detached it has closed src
		return nil
	}
	return u.src.Close()
}

// decide says whether the backend wants the body. What was said first counts.
func (u *upload) decide(wanted bool) {
	if u.undecided {
		u.undecided = false
		u.gate <- wanted
	}
}

// end ends the upload, whose connection is closed if it isn't done. It returns when
// src is read no more, or is an Interrupter. Of another one it can't end a Read:
// patiently it waits for that, as net/http does.
func (u *upload) end(wait bool) {
	u.decide(false)
	i, ok := u.src.(interrupter)
	if !ok {
		if wait {
			<-u.done
		}
		return
	}
	u.mu.Lock()
	detach := u.out != nil
	if detach {
		u.release()
	}
	u.mu.Unlock()
	if detach {
		i.Interrupt()
		u.src.Close()
	}
}

// sent reports whether the request was written to its end. For the last bytes it
// waits a moment.
func (u *upload) sent() bool {
	select {
	case <-u.done:
		return u.complete
	default:
	}
	if !u.srcEnded.Load() {
		return false
	}
	timer := time.NewTimer(lastBytes)
	defer timer.Stop()
	select {
	case <-u.done:
		return u.complete
	case <-timer.C:
		return false
	}
}
