package config_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"holdfast/cmd/internal/config"
)

// TestPage holds docs/configuration.md to the code: its example is valid, and it names every field.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```yaml\n")
	example, _, ok := strings.Cut(example, "```")
	if !ok {
		t.Fatal("docs/configuration.md has no example")
	}
	cfg, err := config.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Backends) != 3 {
		t.Errorf("the example has %d backends, not one of each kind", len(cfg.Backends))
	}
	page := string(text)
	for _, name := range fieldNames(reflect.TypeFor[config.Config]()) {
		if !strings.Contains(page, name+":") {
			t.Errorf("docs/configuration.md does not name %s", name)
		}
	}
}

// fieldNames returns the names in YAML of all fields of a struct and of those in it.
func fieldNames(t reflect.Type) []string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return fieldNames(t.Elem())
	case reflect.Struct:
	default:
		return nil
	}
	var names []string
	for field := range t.Fields() {
		names = append(names, field.Tag.Get("yaml"))
		names = append(names, fieldNames(field.Type)...)
	}
	return names
}
