package middleware

import (
	"io"
	"maps"
	"net/http"
	"sync"
	"time"
)

// A held answer is one that came while the request's body was still being read, where
// a read may touch the client's ResponseWriter (replay.touches). Nothing may be written
// to the client then. To stop the reading at once would break an upload to a backend that
// begins its answer early and still wants the rest. So the answer is read ahead, in
// a goroutine of its own which touches nothing of the client's, until one of these
// happens:
//
//	the upload is over          the answer is passed on as it comes
//	the answer is complete      the reading is stopped, the answer passed on
//	heldLimit bytes are there   the same, and from here on the backend gets no more of
//	                            the request: if it is silent for heldSilence, the
//	                            answer breaks off
//	the answer breaks off       nothing was written yet, so the request fails: that is also
//	                            the end if the client leaves or its body can't be read
//
// It is the body of the answer that hold returns.
type held struct {
	res    *http.Response // as the backend sent it; reading its body changes its Trailer
	passed http.Response  // as it is passed on
	cut    bool           // the upload was stopped because the buffer was full

	done chan struct{} // closed when nobody reads ahead any more

	mu  sync.Mutex
	buf []byte // what was read ahead and not yet passed on
	n   int    // how much was read ahead
	err error  // of the last read
}

const (
	// heldLimit is how much of an answer's body is held, in bytes.
	heldLimit = 64 << 10
	// heldSilence is how long a backend may be silent that may be waiting for the
	// rest of a request which was stopped.
	heldSilence = 30 * time.Second
)

// hold returns res, or what takes its place, when it may be passed on to the client:
// after answerEarly, if the upload isn't over. With an error res is closed.
func (p *replay) hold(res *http.Response) (*http.Response, error) {
	if p == nil || !p.touches {
		return res, nil
	}
	over := p.awaitEnd()
	if over == nil {
		return res, nil
	}
	h := &held{res: res, passed: *res, done: make(chan struct{})}
	h.passed.Body, h.passed.Trailer = h, maps.Clone(res.Trailer)
	go h.readAhead(over) // it ends at the latest when the answer's body is closed
	select {
	case <-over:
		return &h.passed, nil
	case <-h.done:
	}
	switch h.err {
	case io.EOF:
	case nil:
		select {
		case <-over:
		default:
			h.cut = true
			p.stop(past)
		}
	default:
		h.Close()
		return nil, h.err
	}
	return &h.passed, nil
}

// readAhead reads the answer until the upload is over, the buffer is full, or nothing
// more comes.
func (h *held) readAhead(over <-chan struct{}) {
	defer close(h.done)
	size := int64(heldLimit)
	if h.res.ContentLength >= 0 {
		size = min(size, h.res.ContentLength+1) // so that there is room when the end is read
	}
	room := make([]byte, size)
	for h.n < len(room) && h.err == nil {
		select {
		case <-over:
			return
		default:
		}
		n, err := h.res.Body.Read(room[h.n:])
		h.mu.Lock()
		h.buf = room[h.n-len(h.buf) : h.n+n]
		h.n += n
		h.err = err
		h.mu.Unlock()
	}
}

// Read implements [io.Reader]. What was read ahead comes first.
func (h *held) Read(p []byte) (int, error) {
	if n := h.take(p); n > 0 {
		return n, nil
	}
	<-h.done // the last read ahead may still be waiting for the backend
	if n := h.take(p); n > 0 {
		return n, nil
	}
	n, err := 0, h.err
	if err == nil {
		n, err = h.read(p)
	}
	if err == io.EOF {
		h.passed.Trailer = h.res.Trailer
	}
	return n, err
}

// take takes what was read ahead.
func (h *held) take(p []byte) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := copy(p, h.buf)
	h.buf = h.buf[n:]
	return n
}

// read reads on where the reading ahead has ended.
func (h *held) read(p []byte) (int, error) {
	if h.cut {
		silence := time.AfterFunc(heldSilence, func() { _ = h.Close() })
		defer silence.Stop()
	}
	return h.res.Body.Read(p)
}

// Close implements [io.Closer]. It ends a Read that waits for the backend.
func (h *held) Close() error { return h.res.Body.Close() }
