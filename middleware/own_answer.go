package middleware

import (
	"crypto/rand"
	"net/http"
)

// An ownAnswer is the writer that ErrorHandler writes the gateway's own answer to. It
// notes in the record what it writes.
type ownAnswer struct {
	http.ResponseWriter
	rec *Record
}

// Unwrap returns the client's writer, for http.ResponseController.
func (w *ownAnswer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *ownAnswer) WriteHeader(code int) {
	if w.rec.Header == nil && code >= 200 {
		w.rec.answered(SourceGateway, code, w.Header())
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *ownAnswer) Write(p []byte) (int, error) {
	if w.rec.Header == nil {
		w.rec.answered(SourceGateway, http.StatusOK, w.Header())
	}
	n, err := w.ResponseWriter.Write(p)
	if w.rec.Request.Method != http.MethodHead { // to which net/http sends nothing of it
		w.rec.sent(n)
	}
	return n, err
}

// identify returns the request's ID, and sets the field of that name in the answer: the
// client's own, if it is sound, or a new one.
func identify(w http.ResponseWriter, r *http.Request, field string) string {
	id := ""
	if values := r.Header[field]; len(values) == 1 && soundID(values[0]) {
		id = values[0]
	} else {
		id = rand.Text()
	}
	w.Header()[field] = []string{id}
	return id
}

// soundID reports whether id can be kept as a request's ID: it is short, and all of it is
// visible in a log.
func soundID(id string) bool {
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return 1 <= len(id) && len(id) <= 128
}
