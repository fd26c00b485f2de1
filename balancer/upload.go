package balancer

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

// An Interrupter is the body of a request whose Read can be ended from outside.
// A Transport waits for a Read that is under way before it says that an attempt
// failed, and a client that sends nothing would keep it waiting. Interrupt is
// called when the attempt has failed, or its answer's body is closed before the
// request's body was sent; it may be called when no Read is under way, and must
// not call the Transport.
type Interrupter interface{ Interrupt() }

// An upload sends a request with a body, in a goroutine of its own, so that an
// answer which comes before the body's end is heard.
//
// The request's header waits for the first piece of the body, which mostly is
// there already, to go out in one write with it. So that it doesn't wait for a
// client that sends nothing, the goroutine of RoundTrip sends it otherwise.
type upload struct {
	conn  *conn
	src   io.ReadCloser
	trace *httptrace.ClientTrace
	gate  chan bool // with Expect: 100-continue: hears once whether the backend wants the body

	mu        sync.Mutex    // over out: locked by the upload but while it waits for src
	out       *bufio.Writer // nil in the end
	trailer   http.Header   // to be sent
	given     http.Header   // the caller's, which has the values when src has ended
	begun     bool          // src was read
	left      int64         // bytes of src, below 0 if that isn't known
	impatient atomic.Bool   // RoundTrip waits for the answer already

	readErr error                 // of src
	drained atomic.Bool           // src has no more
	err     atomic.Pointer[error] // why the request can't be sent, unless the backend wants no more of it
	whole   bool                  // it was sent; to be read behind done
	done    chan struct{}
}

var errUnwanted = errors.New("the backend answered without asking for the body")

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
		u.gate = make(chan bool, 1)
	}
	var req *http.Request
	if head != nil && len(head) <= u.out.Available() { // a longer one could block
		_, _ = u.out.Write(head)
	} else {
		req = u.spelledOut(c)
	}
	u.mu.Lock()
	go u.run(req) // until it is sent, src fails or is interrupted, or the connection breaks
	runtime.Gosched()
	u.impatient.Store(true)
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
	if u.given = req.Trailer; len(u.given) > 0 {
		u.trailer = make(http.Header)
		for name := range u.given {
			u.trailer[name] = nil
		}
		req.Trailer = u.trailer
	}
	return req
}

// run sends the request: what is in out and the body, or all of req.
func (u *upload) run(req *http.Request) {
	defer close(u.done)
	var err error
	if req == nil {
		err = u.copy()
	} else {
		err = req.Write(plain{u.out})
	}
	if err == nil {
		err = u.out.Flush()
	}
	u.out.Reset(nil)
	writers.Put(u.out)
	u.out = nil
	u.mu.Unlock()
	if u.whole = err == nil; u.whole || u.readErr == errUnwanted || u.conn.rebuffed() {
		return
	}
	err = cmp.Or(u.conn.writeErr, u.readErr, err) // as it was, not wrapped by net/http
	u.err.Store(&err)
	u.conn.abort()
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
		if _, failed := u.out.Write(piece[:n]); failed != nil {
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

// plain hides the methods of a bufio.Writer by which net/http would flush the
// header, and io.Copy would read into its buffer.
type plain struct{ w *bufio.Writer }

func (p plain) Write(b []byte) (int, error)       { return p.w.Write(b) }
func (p plain) WriteByte(b byte) error            { return p.w.WriteByte(b) }
func (p plain) WriteString(s string) (int, error) { return p.w.WriteString(s) }

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
	first := !u.begun
	u.begun = true
	if !first {
		if err := u.out.Flush(); err != nil {
			return 0, err
		}
	}
	u.mu.Unlock()
	defer u.mu.Lock()
	if first && u.impatient.Load() {
		u.flush()
	}
	if first && u.gate != nil && !u.wanted() {
		u.readErr = errUnwanted
		return 0, errUnwanted
	}
	n, err := u.src.Read(p)
	u.left -= int64(n)
	if err == io.EOF {
		for name, values := range u.given { // and what came without having been
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
		u.drained.Store(true)
	case err != nil:
		u.readErr = err
	}
	return n, err
}

// Close implements [io.Closer].
func (u *upload) Close() error { return u.src.Close() }

// wanted waits until the backend wants the body, or has said nothing for too long.
func (u *upload) wanted() bool {
	if u.trace != nil && u.trace.Wait100Continue != nil {
		u.trace.Wait100Continue()
	}
	timer := time.NewTimer(continueTimeout)
	defer timer.Stop()
	select {
	case yes := <-u.gate:
		return yes
	case <-timer.C:
		return true
	}
}

// tell says whether the backend wants the body. What was said first counts.
func (u *upload) tell(wanted bool) {
	select {
	case u.gate <- wanted: // nil without Expect
	default:
	}
}

// end ends the upload and returns when src is read no more. It can't end a Read
// that isn't interrupted: patiently it waits for that, as net/http does.
func (u *upload) end(patiently bool) {
	select {
	case <-u.done:
		return
	default:
	}
	u.tell(false)
	i, ok := u.src.(Interrupter)
	if ok {
		i.Interrupt()
	}
	if ok || patiently {
		<-u.done
	}
}

// sent reports whether the request was written to its end. For the last bytes it
// waits a moment.
func (u *upload) sent() bool {
	select {
	case <-u.done:
		return u.whole
	default:
	}
	if !u.drained.Load() {
		return false
	}
	timer := time.NewTimer(lastBytes)
	defer timer.Stop()
	select {
	case <-u.done:
		return u.whole
	case <-timer.C:
		return false
	}
}
