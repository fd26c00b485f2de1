package affinity

import (
	"io"
	"net/http"
	"net/url"
	"strings"
)

// EndSession turns out into the POST of a session that polls with the packet close, which is
// how a client ends its session. The node then answers a poll of the session that waits, and
// tells the application that the transport was closed. It returns "" for the handshake of a
// WebSocket, and for a request that no client of Engine.IO sends: a GET by which a browser
// goes to a page, or one of another method than GET and POST. Anybody can put the ID of a
// session of his own into a link to any path, and cookies that browsers keep from the POSTs
// of other sites (SameSite=Lax) go with the GET.
//
// The packet is a 1. Version 3 writes its length before it, and JSONP puts all of it into a
// form. A node takes it as text from clients of version 3 that speak binary, too.
func (e *EngineIO) EndSession(out *http.Request, found Pin) (session string) {
	note, ok := found.Note.(*sidNote)
	if !ok || note.sid == "" || note.transport != "polling" {
		return ""
	}
	switch out.Method {
	case http.MethodPost: // JSONP sends its data by a form, which is a navigation, too
	case http.MethodGet:
		if out.Header.Get("Sec-Fetch-Mode") == "navigate" {
			return ""
		}
	default:
		return ""
	}
	body, contentType := "1", "text/plain;charset=UTF-8"
	if note.version != "4" {
		body = "1:1"
	}
	_, query, _ := strings.Cut(out.URL.RequestURI(), "?") // a gateway may have put all of the target into Opaque
	if queryParam(query, "j") != "" {
		body, contentType = "d="+url.QueryEscape(body), "application/x-www-form-urlencoded"
	}
	for name := range out.Header {
		if strings.HasPrefix(name, "Content-") || name == "Expect" || name == "Idempotency-Key" || name == "X-Idempotency-Key" {
			delete(out.Header, name) // they are about the client's body, or name its request
		}
	}
	out.Header["Content-Type"] = []string{contentType}
	out.Method, out.ContentLength = http.MethodPost, int64(len(body))
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
	out.Body, _ = out.GetBody()
	return found.Key
}
