package affinity

import (
	"iter"
	"slices"
	"strings"
)

// The Cookie fields of requests are parsed here and not by net/http. That parser
// gives up all cookies of a client if there are too many. It also can't remove or
// change one of them without writing all others anew. As in RFC 6265 section 5.4,
// a cookie ends at the next ';' even within quotes.

// maxValues is how many cookies of one name are looked at. Browsers send two if
// one of them is partitioned, and a few more if the cookies differ in path or
// domain.
const maxValues = 8

// cookieValues returns the values of the cookies of this name in their order,
// without white space or quotes around them.
func cookieValues(lines []string, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		left := maxValues
		for _, line := range lines {
			for end := 0; ; left-- {
				var start int
				if start, end = findCookie(line, name, end); start < 0 {
					break
				}
				from, to := valueSpan(line[start:end])
				if left == 0 || !yield(line[start+from:start+to]) {
					return
				}
			}
		}
	}
}

// findCookie finds the next cookie of this name that begins at line[from] or
// behind it. The cookie is line[start:end], with the white space around it and
// without the ';' on either side. start is -1 if there is none.
func findCookie(line, name string, from int) (start, end int) {
	for name != "" {
		i := strings.Index(line[from:], name)
		if i < 0 {
			break
		}
		before := strings.TrimRight(line[:from+i], " \t")
		from += i + len(name)
		after := strings.TrimLeft(line[from:], " \t")
		if before != "" && before[len(before)-1] != ';' || after == "" || after[0] != '=' {
			continue // part of a longer name, or of a value
		}
		end = len(line)
		if i := strings.IndexByte(line[from:], ';'); i >= 0 {
			end = from + i
		}
		return len(before), end
	}
	return -1, len(line)
}

// valueSpan returns where the value is in a cookie, which is "name=value" with
// white space anywhere. The value is cookie[start:end], without white space or
// quotes around it.
func valueSpan(cookie string) (start, end int) {
	start, end = strings.IndexByte(cookie, '=')+1, len(cookie)
	for start < end && blank(cookie[start]) {
		start++
	}
	for start < end && blank(cookie[end-1]) {
		end--
	}
	if end-start > 1 && cookie[start] == '"' && cookie[end-1] == '"' {
		return start + 1, end - 1
	}
	return start, end
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// editCookies replaces the values of the cookies of this name by what edit
// returns for them. All other bytes stay as the client wrote them. It doesn't
// write to lines, and returns lines itself if nothing changes.
func editCookies(lines []string, name string, edit func(value string) string) []string {
	var edited []string // nil until a line changes
	for i, line := range lines {
		now := editCookie(line, name, edit)
		if now == line {
			continue
		}
		if edited == nil {
			edited = slices.Clone(lines)
		}
		edited[i] = now
	}
	if edited == nil {
		return lines
	}
	return edited
}

// editCookie is editCookies for one line.
func editCookie(line, name string, edit func(value string) string) string {
	var edited strings.Builder
	done := 0
	for start, end := findCookie(line, name, 0); start >= 0; start, end = findCookie(line, name, end) {
		from, to := valueSpan(line[start:end])
		value := line[start+from : start+to]
		if now := edit(value); now != value {
			edited.WriteString(line[done : start+from])
			edited.WriteString(now)
			done = start + to
		}
	}
	if done == 0 {
		return line
	}
	edited.WriteString(line[done:])
	return edited.String()
}

// stripCookies removes the cookies of this name, and lines that had no other
// cookie. All other bytes stay as the client wrote them. It doesn't write to
// lines, and returns lines itself if nothing changes.
func stripCookies(lines []string, name string) []string {
	var kept []string // nil until a line changes
	for i, line := range lines {
		rest := stripCookie(line, name)
		if changed := len(rest) < len(line); changed && kept == nil {
			if len(lines) == 1 && rest == "" {
				return nil
			}
			kept = append(make([]string, 0, len(lines)), lines[:i]...)
		} else if !changed && kept == nil {
			continue
		}
		if rest != "" || line == "" {
			kept = append(kept, rest)
		}
	}
	if kept == nil {
		return lines
	}
	return kept
}

// stripCookie removes the cookies of this name from line, each together with
// the ';' before it. For a cookie at the beginning it is the ';' behind it.
func stripCookie(line, name string) string {
	start, end := findCookie(line, name, 0)
	if start < 0 {
		return line
	}
	first := start == 0
	if before := line[:max(start-1, 0)]; end == len(line) {
		return before
	} else if next, _ := findCookie(line, name, end); first && next < 0 {
		return strings.TrimLeft(line[end+1:], " \t")
	}
	var kept strings.Builder
	done := 0
	for ; start >= 0; start, end = findCookie(line, name, done) {
		kept.WriteString(line[done:max(start-1, 0)])
		done = end
	}
	kept.WriteString(line[done:])
	if first {
		return strings.TrimLeft(strings.TrimPrefix(kept.String(), ";"), " \t")
	}
	return kept.String()
}
