package affinity

import (
	"net/url"
	"strings"
)

// urlParam returns the value of the parameter of this name in the path, or in
// the query if the path has none.
func urlParam(u *url.URL, name string) string {
	if strings.Contains(u.Path, ";") {
		if value := pathParam(u.EscapedPath(), name); value != "" {
			return value
		}
	}
	if u.RawQuery == "" {
		return ""
	}
	return queryParam(u.RawQuery, name)
}

// pathParam returns the value of the first parameter of this name that isn't
// empty in an escaped path. Parameters stand at the end of a segment, each
// behind a ';'.
func pathParam(path, name string) string {
	for {
		_, rest, ok := strings.Cut(path, ";")
		if !ok {
			return ""
		}
		end := len(rest)
		if i := strings.IndexAny(rest, ";/"); i >= 0 {
			end = i
		}
		n, value, _ := strings.Cut(rest[:end], "=")
		if n == name && value != "" {
			if u, err := url.PathUnescape(value); err == nil {
				return u
			}
			return value
		}
		path = rest[end:]
	}
}

// queryParam returns the value of the first parameter of this name that isn't
// empty in a query. It returns "" if there is none.
func queryParam(query, name string) string {
	for query != "" {
		var param string
		param, query, _ = strings.Cut(query, "&")
		n, value, _ := strings.Cut(param, "=")
		if value != "" && (n == name || unescape(n) == name) {
			return unescape(value)
		}
	}
	return ""
}

// unescape decodes s. It returns s itself if that is not well encoded.
func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}
