package middleware

import (
	"bufio"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
)

// A small request mostly comes in one piece, and net/http's server has read its body together
// with its header. Such a body is taken from the server at once, before a backend is picked.
// Then no attempt waits for the client: balancer.Transport sends the request in one write,
// without a goroutine for the body, and the body is there for every attempt.
//
// A body that isn't there as a whole is left alone. Nobody can find that out by a Read: it
// would last as long as the client likes, while the backend's early answer couldn't be passed
// on, and a client whose Read was interrupted has lost its connection.
//
// net/http doesn't say what its server has read ahead. It stands in the server's buffer, to
// which unexported fields lead from the request's body. Package reflect reads them, and can't
// change anything. Where they are is learned from a request that net/http parses. If a version
// of Go has other fields, no body counts as read ahead, and all go the way of large ones.

// maxReadAhead is the length of the largest body that is taken. It is the size of the
// server's buffer, in which the header may take some room too.
const maxReadAhead = 4 << 10

// readAhead returns how many bytes of body can be read without waiting for the client. It is
// 0 unless body is that of a request to net/http's server for HTTP/1, with a Content-Length.
func readAhead(body io.Reader) int64 {
	if f := serverFields(); reflect.TypeOf(body) == f.body {
		return f.readAhead(body)
	}
	return 0
}

// bodyFields says where the fields are that lead from a request's body to the server's buffer.
type bodyFields struct {
	body       reflect.Type // of the body, nil if the fields aren't as expected
	src        int          // of the body: an *io.LimitedReader, unless the length isn't known
	start, end int          // of a bufio.Reader: where in its buffer the bytes are that it has read ahead
}

var (
	limitedType = reflect.TypeFor[io.LimitedReader]()
	bufferType  = reflect.TypeFor[bufio.Reader]()
)

// serverFields returns the fields of this version of net/http.
var serverFields = sync.OnceValue(func() (f bodyFields) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab, and the next request")))
	if err != nil {
		return bodyFields{}
	}
	body := reflect.TypeOf(r.Body)
	ok := body.Kind() == reflect.Pointer && body.Elem().Kind() == reflect.Struct &&
		index(body.Elem(), "src", reflect.Interface, &f.src) &&
		index(bufferType, "r", reflect.Int, &f.start) && index(bufferType, "w", reflect.Int, &f.end)
	if !ok || f.readAhead(r.Body) != 2 {
		return bodyFields{}
	}
	if _, err := io.ReadFull(r.Body, make([]byte, 1)); err != nil || f.readAhead(r.Body) != 1 {
		return bodyFields{}
	}
	f.body = body
	return f
})

// index sets i to the index of a field of a struct, and reports whether it is of that kind.
func index(of reflect.Type, name string, kind reflect.Kind, i *int) bool {
	field, ok := of.FieldByName(name)
	if ok = ok && field.Type.Kind() == kind && len(field.Index) == 1; ok {
		*i = field.Index[0]
	}
	return ok
}

// readAhead is the function of the same name for a body that has these fields.
func (f *bodyFields) readAhead(body io.Reader) int64 {
	limited := behind(reflect.ValueOf(body).Elem().Field(f.src))
	if !limited.IsValid() || limited.Type() != limitedType {
		return 0
	}
	buffer := behind(limited.Field(0)) // R
	if !buffer.IsValid() || buffer.Type() != bufferType {
		return 0
	}
	left := limited.Field(1).Int() // N
	return min(left, buffer.Field(f.end).Int()-buffer.Field(f.start).Int())
}

// behind returns what the pointer in an interface points to. It is the zero Value if there is
// no pointer.
func behind(v reflect.Value) reflect.Value {
	if v = v.Elem(); v.Kind() != reflect.Pointer {
		return reflect.Value{}
	}
	return v.Elem()
}

// takeReadAhead reads src to its end if the server has read all of its length bytes.
func (p *replay) takeReadAhead(length int64) {
	if length <= 0 || length > min(maxReadAhead, int64(p.limit)) || p.max > 0 && length > p.max || readAhead(p.src) != length {
		return
	}
	p.buf = make([]byte, length)
	for p.err == nil {
		n, err := p.src.Read(p.buf[p.n:])
		p.n, p.err = p.n+int64(n), err
	}
	if p.err != io.EOF { // the bytes were there, so that this can't be
		p.err = &bodyError{p.err}
	}
}
