package affinity

import (
	"net/url"
	"strings"
)

// An engineQuery is what the query of an Engine.IO request says. Of a parameter
// that is there more than once, the first that isn't empty counts. As with
// [Query], ';' is nothing special and a broken escape is taken as it stands.
type engineQuery struct {
	version   string // EIO
	transport string
	sid       string
}

func parseEngineQuery(query string) (q engineQuery) {
	for rest := query; rest != ""; {
		var param string
		param, rest, _ = strings.Cut(rest, "&")
		name, value, _ := strings.Cut(param, "=")
		if field := q.field(name); field != nil && *field == "" {
			*field = unescape(value)
		}
	}
	return q
}

// field returns where the value of the parameter of this name belongs, or nil.
func (q *engineQuery) field(name string) *string {
	if strings.ContainsAny(name, "%+") {
		name = unescape(name)
	}
	switch name {
	case "EIO":
		return &q.version
	case "transport":
		return &q.transport
	case "sid":
		return &q.sid
	}
	return nil
}

// replaceSID returns query with the sid new wherever it has old. All other bytes
// stay as the client wrote them, and so do those of the sid if new is a prefix
// of old.
func replaceSID(query, old, new string) string {
	var b strings.Builder
	for rest, more := query, true; more; {
		var param string
		param, rest, more = strings.Cut(rest, "&")
		name, value, _ := strings.Cut(param, "=")
		var q engineQuery
		if q.field(name) == &q.sid && unescape(value) == old {
			param = name + "=" + newValue(value, old, new)
		}
		b.WriteString(param)
		if more {
			b.WriteByte('&')
		}
	}
	return b.String()
}

func newValue(value, old, new string) string {
	if tag, ok := strings.CutPrefix(old, new); ok {
		if kept, ok := strings.CutSuffix(value, tag); ok {
			return kept
		}
	}
	return url.QueryEscape(new)
}
