package http1

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"

	"github.com/limpet-go/limpet/internal/httpfield"
	"github.com/limpet-go/limpet/internal/httphead"
)

// valid returns why a request can't be sent as HTTP/1.1, nil if it can. It checks what
// http.Request.Write leaves to net/http's Transport.
func valid(req *http.Request) error {
	if req.URL == nil {
		return errors.New("the request has no URL")
	}
	if req.Method != "" && !httpfield.IsToken(req.Method) {
		return fmt.Errorf("invalid method %q", req.Method)
	}
	if !httphead.IsTarget(req.URL.Opaque) || !httphead.IsTarget(req.URL.RawQuery) { // the path is escaped
		return errors.New("white space or a control character in the request's URL")
	}
	return cmp.Or(validFields("header", req.Header), validFields("trailer", req.Trailer))
}

// validFields returns what is wrong with a header or trailer, nil if nothing is.
func validFields(part string, h http.Header) error {
	for name, values := range h {
		if !httpfield.IsToken(name) || httphead.Misspelled(name) {
			return fmt.Errorf("invalid field name %q in the %s", name, part)
		}
		for _, value := range values {
			if !httpfield.IsValue(value) {
				return fmt.Errorf("invalid value of the field %s in the %s", name, part) // without the value, which may be a secret
			}
		}
	}
	return nil
}

// expectsContinue reports whether the body has to wait for a 100 (RFC 9110, section
// 10.1.1).
func expectsContinue(req *http.Request) bool {
	return httpfield.HasToken(req.Header["Expect"], "100-continue")
}

// switches reports whether the connection changes its protocol with this answer.
func switches(res *http.Response) bool {
	return res.StatusCode == http.StatusSwitchingProtocols && res.ProtoAtLeast(1, 1) && // HTTP/1.0 can't (RFC 9110, section 15.2)
		res.Header.Get("Upgrade") != "" && httpfield.HasToken(res.Header["Connection"], "upgrade")
}

// repeatable reports whether a request may be sent again although it may have arrived.
// It is the rule of net/http's Transport.
func repeatable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return req.Header["Idempotency-Key"] != nil || req.Header["X-Idempotency-Key"] != nil
}
