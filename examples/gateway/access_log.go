package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// openAccessLog opens the log that -access-log describes, nil if there is to be none. It
// goes to standard output unless a file is named: what the gateway says about itself goes
// to standard error.
//
// A file is appended to. A tool that rotates it has to copy and truncate it (logrotate:
// copytruncate).
func openAccessLog(s string) (*slog.Logger, error) {
	format, file, named := strings.Cut(s, ":")
	if s == "off" {
		return nil, nil
	}
	if format != "json" && format != "text" {
		return nil, fmt.Errorf("-access-log %q: want off, json or text, or with a file json:FILE or text:FILE", s)
	}
	var out io.Writer = os.Stdout
	if named {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, fmt.Errorf("-access-log: %w", err)
		}
		out = f // until the process ends
	}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(out, nil)), nil
	}
	return slog.New(slog.NewTextHandler(out, nil)), nil
}
