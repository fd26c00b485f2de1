package browser

import (
	"encoding/json"
	"fmt"
	"slices"
)

// An event is what the browser tells without being asked.
type event struct {
	SessionID string
	Method    string
	Params    json.RawMessage
}

// complaint returns what an event complains about, "" if it doesn't: an exception that no
// script caught, a warning or an error on the console, and what the browser itself has
// against the page, such as a violation of its Content-Security-Policy.
func (e event) complaint() string {
	switch e.Method {
	case "Runtime.exceptionThrown":
		var thrown struct {
			ExceptionDetails struct {
				Text      string
				URL       string
				Line      int `json:"lineNumber"`
				Exception struct{ Description string }
			}
		}
		json.Unmarshal(e.Params, &thrown)
		d := thrown.ExceptionDetails
		return fmt.Sprintf("%s %s (%s:%d)", d.Text, d.Exception.Description, d.URL, d.Line+1)
	case "Runtime.consoleAPICalled":
		var called struct {
			Type string
			Args []struct {
				Value       any
				Description string
			}
		}
		json.Unmarshal(e.Params, &called)
		if called.Type == "warning" || called.Type == "error" || called.Type == "assert" {
			return fmt.Sprintf("console.%s: %v", called.Type, called.Args)
		}
	case "Log.entryAdded":
		var added struct {
			Entry struct{ Source, Level, Text, URL string }
		}
		json.Unmarshal(e.Params, &added)
		if entry := added.Entry; entry.Level == "warning" || entry.Level == "error" {
			return fmt.Sprintf("%s %s: %s (%s)", entry.Source, entry.Level, entry.Text, entry.URL)
		}
	}
	return ""
}

// Complaints returns what has gone wrong on the page since it was opened: exceptions that
// no script caught, warnings and errors on the console, and what the browser logs about
// the page, such as violations of its Content-Security-Policy and requests that failed.
func (p *Page) Complaints() []string {
	p.devtools.mu.Lock()
	defer p.devtools.mu.Unlock()
	return slices.Clone(p.devtools.said[p.session])
}
