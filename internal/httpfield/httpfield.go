// Package httpfield knows the syntax of HTTP fields (RFC 9110, section 5).
package httpfield

import (
	"net/textproto"
	"strings"
)

// tokenByte has the bytes that tokens are made of.
var tokenByte = func() (is [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		is[c] = true
	}
	return is
}()

// IsToken reports whether s is a token, as the names of fields and methods are (RFC
// 9110, section 5.6.2).
func IsToken(s string) bool {
	for i := range len(s) {
		if !tokenByte[s[i]] {
			return false
		}
	}
	return s != ""
}

// IsValue reports whether s can be the value of a field: the tab is the only control
// character in it (RFC 9110, section 5.5).
func IsValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// AreValues reports whether each of these can be the value of a field.
func AreValues(values []string) bool {
	for _, value := range values {
		if !IsValue(value) {
			return false
		}
	}
	return true
}

// HasToken reports whether a field that is a list, in any number of lines, has this
// member (RFC 9110, section 5.6.1). It compares without regard to case.
func HasToken(lines []string, token string) bool {
	for _, line := range lines {
		for member := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(textproto.TrimString(member), token) {
				return true
			}
		}
	}
	return false
}

// IsHopByHop reports whether the field with this canonical name concerns a single connection,
// and must not be passed on (RFC 9110, section 7.6.1). Fields that Connection names are
// hop-by-hop too. Proxy-Connection isn't in any standard, but some clients send it.
func IsHopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate",
		"Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}
