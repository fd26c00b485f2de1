package affinity

import (
	"iter"
	"slices"
	"strings"
)

// Cookie headers are read here rather than by net/http, which gives up on all
// of a client's cookies when there are too many and can't take one of them out
// or change it without writing the others anew. As in RFC 6265 section 5.4, cookies end at
// ';', wherever it stands.

// maxValues bounds how many cookies of one name are looked at. Browsers send
// two when one of them is partitioned, a few more when paths and domains differ.
const maxValues = 8

// cookieValues returns the values of the cookies of this name, in order, as a
// client may write them: without white space or quotes around.
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

// findCookie finds the next cookie of this name in line, which begins at from or
// behind it: line[start:end] is the cookie with the space around it, without
// the ';' on either side. start is -1 if there is none.
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

// valueSpan tells where the value of a cookie is, "name=value" with white space
// anywhere: cookie[start:end], without the space or the quotes around it.
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

// editCookies returns lines with the values of the cookies of this name as edit
// returns them. All other bytes stay as the client wrote them. lines is not
// written to, and returned as it is if nothing changes.
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

// stripCookies returns lines without the cookies of this name, and without a
// line that had nothing else. All other bytes stay as the client wrote them.
// lines is not written to, and returned as it is if there is nothing to strip.
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

// stripCookie takes the cookies of this name out of line, each with the ';'
// before it, or the one behind it if it came first.
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
