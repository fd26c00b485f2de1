package httpfield

import (
	"net/textproto"
	"strings"
)

// Prefer returns the media type, of those that are offered, that a client with these
// lines of Accept likes best, or "" if it accepts none of them (RFC 9110, section
// 12.5.1). Without the field it is the first one.
//
// The most specific range that matches an offer gives its quality. Of two with the same
// quality it is the one that the client names more closely, then the one that it names
// first, then the one that is offered first. Parameters of a range other than q are
// ignored: a client that accepts a version of a format likes that format.
func Prefer(accept []string, offers ...string) string {
	if len(accept) == 0 && len(offers) > 0 {
		return offers[0]
	}
	type match struct{ closeness, quality, place int }
	matches := make([]match, len(offers))
	place := 0
	for _, line := range accept {
		for line != "" {
			var member string
			member, line = cutQuoted(line, ',')
			mediaRange, params := cutQuoted(member, ';')
			q, ok := quality(params)
			if !ok {
				continue
			}
			place++
			for i, offer := range offers {
				c := closeness(textproto.TrimString(mediaRange), offer)
				if m := &matches[i]; c > m.closeness || c > 0 && c == m.closeness && q > m.quality {
					*m = match{c, q, place}
				}
			}
		}
	}
	best, found := match{}, ""
	for i, m := range matches {
		better := m.quality > best.quality ||
			m.quality == best.quality && (m.closeness > best.closeness ||
				m.closeness == best.closeness && m.place < best.place)
		if m.quality > 0 && better {
			best, found = m, offers[i]
		}
	}
	return found
}

// closeness returns how closely a media range names a media type: 3 for its name, 2 for
// its kind (text/*), 1 for any type, and 0 if it doesn't. Some clients write * for */*.
func closeness(mediaRange, offer string) int {
	kind, _, _ := strings.Cut(offer, "/")
	switch {
	case mediaRange == "*/*" || mediaRange == "*":
		return 1
	case strings.EqualFold(mediaRange, offer):
		return 3
	case len(mediaRange) == len(kind)+2 && strings.EqualFold(mediaRange[:len(kind)], kind) && mediaRange[len(kind):] == "/*":
		return 2
	}
	return 0
}

// quality returns the weight among a media range's parameters, in thousandths (RFC 9110,
// section 12.4.2). It is 1000 if there is none. ok is false if it is none that the RFC
// allows, except for .5, which some clients write.
func quality(params string) (q int, ok bool) {
	for params != "" {
		var param string
		param, params = cutQuoted(params, ';')
		name, value, _ := strings.Cut(param, "=")
		if !strings.EqualFold(textproto.TrimString(name), "q") {
			continue
		}
		whole, fraction, _ := strings.Cut(textproto.TrimString(value), ".")
		if whole != "" && whole != "0" && whole != "1" || whole+fraction == "" || len(fraction) > 3 {
			return 0, false
		}
		for _, digit := range []byte(whole + (fraction + "000")[:3]) {
			if digit < '0' || digit > '9' {
				return 0, false
			}
			q = q*10 + int(digit-'0')
		}
		return q, q <= 1000
	}
	return 1000, true
}

// cutQuoted cuts s at the first sep that isn't in a quoted string (RFC 9110, section
// 5.6.4). after is empty if there is none.
func cutQuoted(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == sep && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}
