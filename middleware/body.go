package middleware

import (
	"io"
	"sync"
)

// onClose returns body, with f called once after its first Close. The body of a 101
// can be written to and half-closed as well, and what onClose returns can too.
func onClose(body io.ReadCloser, f func()) io.ReadCloser {
	hooked := closeBody{ReadCloser: body, f: sync.OnceFunc(f)}
	switch body := body.(type) {
	case halfCloser:
		return struct {
			closeBody
			halfCloser
		}{hooked, body}
	case io.Writer:
		return struct {
			closeBody
			io.Writer
		}{hooked, body}
	}
	return hooked
}

// halfCloser has the methods that the body of a 101 has beside those of an
// io.ReadCloser. httputil.ReverseProxy uses them to end one direction of a tunnel.
type halfCloser interface {
	io.Writer
	CloseWrite() error
}

// closeBody is a body that calls f after it was closed.
type closeBody struct {
	io.ReadCloser
	f func()
}

func (b closeBody) Close() error {
	defer b.f()
	return b.ReadCloser.Close()
}

// eofBody is a body that calls f before its Read returns io.EOF.
type eofBody struct {
	io.ReadCloser
	f func()
}

func (b *eofBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.f()
	}
	return n, err
}
