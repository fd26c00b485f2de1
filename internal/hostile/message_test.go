package hostile_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A message is a request or an answer as it came over the wire.
type message struct {
	start   string // the request line or the status line
	fields  []field
	body    string
	trailer []field
	cut     bool // it broke off before its end
}

type field struct{ name, value string }

// errGarbage is what isn't HTTP as a strict recipient has it: a peer that is less
// strict could take it for something else.
var errGarbage = errors.New("garbage")

// readHead reads a message up to its body. At the end of what there is to read it
// returns io.EOF.
func readHead(r *bufio.Reader) (*message, error) {
	m := &message{}
	var err error
	if m.start, err = readLine(r); err != nil {
		return m, err
	}
	m.fields, err = readFields(r)
	m.cut = errors.Is(err, io.ErrUnexpectedEOF)
	return m, err
}

func readFields(r *bufio.Reader) (fields []field, err error) {
	for {
		line, err := readLine(r)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil || line == "" {
			return fields, err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.Trim(strings.ToLower(name), "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") != "" {
			return fields, fmt.Errorf("%w: field line %q", errGarbage, line)
		}
		fields = append(fields, field{name, strings.Trim(value, " \t")})
	}
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	switch {
	case err == io.EOF && line == "":
		return "", io.EOF
	case err == io.EOF:
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok || strings.ContainsAny(text, "\r\x00") {
		return "", fmt.Errorf("%w: line %q", errGarbage, line)
	}
	return text, nil
}

// get returns the values of the fields of a name, whatever its case.
func (m *message) get(name string) (values []string) {
	for _, f := range m.fields {
		if strings.EqualFold(f.name, name) {
			values = append(values, f.value)
		}
	}
	return values
}

// readBody reads what belongs to m behind its head. Without any framing there is
// nothing, or with untilEnd all that comes.
func (m *message) readBody(r *bufio.Reader, untilEnd bool) error {
	coding, length := m.get("Transfer-Encoding"), m.get("Content-Length")
	var body []byte
	var err error
	switch {
	case len(coding) == 1 && coding[0] == "chunked" && len(length) == 0:
		body, err = readChunks(r)
		if err == nil {
			m.trailer, err = readFields(r)
		}
	case len(length) == 1 && len(coding) == 0:
		n, bad := strconv.ParseUint(length[0], 10, 31)
		if bad != nil || length[0] != strconv.FormatUint(n, 10) {
			return fmt.Errorf("%w: %q", errGarbage, m.fields)
		}
		body, err = readUpTo(r, int64(n))
	case len(length)+len(coding) != 0:
		return fmt.Errorf("%w: it is framed by %q", errGarbage, m.fields)
	case untilEnd:
		body, err = io.ReadAll(r)
	}
	m.body = string(body)
	m.cut = err != nil && !errors.Is(err, errGarbage)
	return err
}

func readUpTo(r *bufio.Reader, n int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, n))
	if err == nil && int64(len(b)) < n {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

func readChunks(r *bufio.Reader) (body []byte, err error) {
	for {
		line, err := readLine(r)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return body, err
		}
		n, err := strconv.ParseUint(line, 16, 31)
		if err != nil {
			return body, fmt.Errorf("%w: chunk %q", errGarbage, line)
		}
		if n == 0 {
			return body, nil
		}
		piece, err := readUpTo(r, int64(n)+2)
		body = append(body, piece[:min(int(n), len(piece))]...)
		if err != nil {
			return body, err
		}
		if string(piece[n:]) != "\r\n" {
			return body, fmt.Errorf("%w: chunk %q", errGarbage, piece)
		}
	}
}

// text returns the message in the notation of the tables: its start, its fields in
// alphabetical order but the Host first, the body and the trailer, all without
// what leaveOut names.
func (m *message) text(leaveOut func(f field) bool) string {
	var b strings.Builder
	b.WriteString(m.start + "\n")
	writeFields(&b, m.fields, leaveOut)
	b.WriteString("\n" + m.body)
	if len(m.trailer) > 0 {
		b.WriteString("\n")
		writeFields(&b, m.trailer, leaveOut)
	}
	return b.String()
}

func writeFields(b *strings.Builder, fields []field, leaveOut func(f field) bool) {
	var lines []string
	for _, f := range fields {
		if !leaveOut(f) {
			lines = append(lines, f.name+": "+f.value+"\n")
		}
	}
	slices.SortStableFunc(lines, func(a, b string) int {
		if host := strings.HasPrefix(a, "Host:"); host != strings.HasPrefix(b, "Host:") {
			if host {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	b.WriteString(strings.Join(lines, ""))
}
