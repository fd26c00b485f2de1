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

	"github.com/limpet-go/limpet/internal/httphead"
)

// An interrupter is a balancer.Interrupter.
type interrupter interface{ Interrupt() }

// An upload sends a request with a body, in a goroutine of its own (run), so that an
// answer which comes before the body's end is read. Its states, where RoundTrip stands
// for the goroutine that owns the call:
//
//	state     what happens                             mu        goes on to
//	writing   the header or a piece of the body is     run       reading, by run (waiting before the first
//	          written                                            piece with Expect: 100-continue)
//	                                                             done, by run, when the request is sent or a
//	                                                             write has failed
//	waiting   run waits at the gate for the origin     free      reading, when RoundTrip opens the gate
//	          to ask for the body                                done, when RoundTrip shuts it for good
//	                                                             detached, as from reading
//	reading   src is read, which takes as long as      free      writing, by run
//	          the client likes                                   done, by run, when the read has failed
//	                                                             detached, by RoundTrip (end)
//	detached  the call is over, the Read of src isn't  free      done, by run, when that Read returns
//	done      run has returned                         -
//
// RoundTrip ends an upload after it has closed the connection, which ends the state
// writing, and shuts the gate, which ends the state waiting. While src is being read it
// detaches the upload if src is an interrupter, and waits for the Read to return
// otherwise. A detached upload has neither connection nor buffer: run finds out being
// nil when it holds mu again, and touches nothing of the call.
//
// The header of the request waits in out for the first piece of the body, which is
// mostly there already, so that both go out in one write. So that it doesn't wait for a
// client that sends nothing, RoundTrip flushes it before it waits for the answer. If run
// is writing just then, run flushes it before it reads src.
type upload struct {
	conn  *conn
	src   io.ReadCloser // the request's body
	trace *httptrace.ClientTrace

	gate      chan bool // with Expect: 100-continue: receives once whether the origin wants the body
	undecided bool      // the gate has received nothing yet; only RoundTrip uses it
	goOnAt    time.Time // when RoundTrip opens the gate if the origin has said nothing

	mu         sync.Mutex    // guards out and writes to it; run holds it but while it waits or reads
	out        *bufio.Writer // nil when the upload is detached or done
	trailer    http.Header   // the trailer to be sent
	srcTrailer http.Header   // the caller's, which has its values when src has ended
	begun      bool          // the first Read of src has begun
	left       int64         // bytes of src to come; negative if that isn't known
	awaited    atomic.Bool   // RoundTrip waits for the answer: a header that waits is late

	readErr  error                 // of src
	srcEnded atomic.Bool           // src has been read to its end
	err      atomic.Pointer[error] // why the request can't be sent, unless the origin wants no more of it
	complete bool                  // the request was sent to its end; to be read only after done is closed
	done     chan struct{}         // closed when run returns
}

var (
	errUnwanted = errors.New("the backend answered without asking for the body")
	errDetached = errors.New("the request has ended without its body")
)

// continueTimeout is how long an upload waits for the origin to ask for the body. One
// that doesn't know Expect never asks (RFC 9110, section 10.1.1).
const continueTimeout = 5 * time.Second

// lastBytes is how long the end of an answer waits for the last bytes of the request to
// be written, so that the connection can be kept. net/http waits as long.
const lastBytes = 50 * time.Millisecond

// pieces are buffers for bodies.
var pieces = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// newUpload begins to send the request of c: head, which it gives back, and then the body as
// it is. If head is nil, or too long for the buffer, net/http writes the request.
func newUpload(c *call, head *[]byte) *upload {
	u := &upload{
		conn: c.conn, src: c.req.Body, trace: c.trace, left: c.req.ContentLength,
		out: writers.Get().(*bufio.Writer), done: make(chan struct{}),
	}
	u.out.Reset(u.conn)
	if expectsContinue(c.req) {
		u.gate, u.undecided, u.goOnAt = make(chan bool, 1), true, time.Now().Add(continueTimeout)
	}
	var req *http.Request
	if head != nil && len(*head) <= u.out.Available() { // else writing it could block
		_, _ = u.out.Write(*head)
	} else {
		req = u.spelledOut(c)
	}
	if head != nil {
		httphead.Release(head)
	}
	u.mu.Lock()
	go u.run(req) // it ends when the request is sent, src fails, or the connection is closed
	runtime.Gosched()
	u.awaited.Store(true)
	u.flush()
	return u
}

// spelledOut returns the request of c for http.Request.Write, with u as its body.
func (u *upload) spelledOut(c *call) *http.Request {
	req := c.spelledOut()
	req.Body = u
	if req.ContentLength <= 0 {
		// Otherwise net/http would wait for the first byte of some bodies, and send
		// others, such as that of a CONNECT, without any framing.
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

// run sends the request: what is in out and the body or, if req isn't nil, all of req.
// It begins with mu held.
func (u *upload) run(req *http.Request) {
	defer close(u.done)
	defer u.mu.Unlock()
	var err error
	if req == nil {
		err = u.copy()
	} else {
		err = req.Write(uploadWriter{u})
	}
	if u.out == nil { // detached: the connection doesn't belong to the call any more
		return
	}
	if err == nil {
		err = u.out.Flush()
	}
	u.release()
	if u.complete = err == nil; u.complete || u.readErr == errUnwanted || u.withdrawn() || u.conn.rebuffed() {
		return
	}
	err = cmp.Or(u.conn.writeErr, u.readErr, err) // the first cause, which net/http has wrapped
	u.err.Store(&err)
	u.conn.abort()
}

// withdrawn reports whether the owner of src has no more use for it, and the origin's
// answer is still wanted: an interrupter says so with http.ErrBodyReadAfterClose. From any
// other body that error is a failure as all are.
func (u *upload) withdrawn() bool {
	_, ok := u.src.(interrupter)
	return ok && u.readErr == http.ErrBodyReadAfterClose
}

// release gives the buffer back. The caller holds mu.
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

// An uploadWriter passes what is written on to out. It hides the other methods of a
// bufio.Writer: http.Request.Write would use Flush to send the header alone, and io.Copy
// would use ReadFrom to read the body into the buffer without going through Read.
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

// flush sends what waits in out, unless somebody is writing already.
func (u *upload) flush() {
	if u.mu.TryLock() {
		if u.out != nil {
			_ = u.out.Flush() // the next write fails too
		}
		u.mu.Unlock()
	}
}

// Read implements [io.Reader] for copy and http.Request.Write: it reads src. What was
// written before is flushed first, but for the header, which waits for this piece.
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
		for name, values := range u.srcTrailer { // those that weren't announced too
			if !httphead.Frames(name) {
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

// read reads src without mu. Before the first Read it flushes the header if RoundTrip
// waits already, and waits at the gate if there is one.
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
	if u.out == nil { // end has closed src, and Interrupt lets a Read last
		return nil
	}
	return u.src.Close()
}

// decide opens the gate or shuts it for good, if there is one. The first call counts.
func (u *upload) decide(wanted bool) {
	if u.undecided {
		u.undecided = false
		u.gate <- wanted
	}
}

// end ends the upload. Its connection is closed, unless it is done. If src is an
// interrupter end detaches the upload from it. Otherwise nothing can end a Read of src:
// with wait end waits until run has returned, as net/http does.
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

// sent reports whether the request was written to its end. It waits a moment for the
// last bytes.
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
