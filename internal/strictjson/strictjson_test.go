package strictjson_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"holdfast"
	"holdfast/internal/strictjson"
)

func TestCheckAccepts(t *testing.T) {
	for _, text := range []string{
		`null`, ` true `, `0`, `-0`, `-1.5e-3`, `1E30`, `9007199254740991`, `9007199254740992`, `100000000000000000000`, `""`, `"\u00e9\ud83d\ude00"`, `[]`, `{}`,
		"[1,\t2 ,\r\n3]", `{"a":{"a":1},"A":2}`, `"` + "\u2028é" + `"`,
		strings.Repeat("[", strictjson.MaxDepth) + strings.Repeat("]", strictjson.MaxDepth),
	} {
		if err := strictjson.Check([]byte(text)); err != nil {
			t.Errorf("Check(%s) = %v", text, err)
		}
		if !json.Valid([]byte(text)) {
			t.Errorf("encoding/json does not accept %s", text)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	var many strings.Builder
	many.WriteString(`{"x":0`)
	for i := range 40 {
		many.WriteString(`,"n` + strings.Repeat("i", i) + `":0`)
	}
	for name, text := range map[string]string{
		"empty":                  ``,
		"space only":             ` `,
		"two texts":              `{} {}`,
		"duplicate name":         `{"a":1,"a":2}`,
		"duplicate by escape":    `{"a":1,"\u0061":2}`,
		"duplicate deep":         `[{"x":{"k":1,"k":1}}]`,
		"duplicate among many":   many.String() + `,"x":1}`,
		"too deep":               strings.Repeat("[", strictjson.MaxDepth+1) + strings.Repeat("]", strictjson.MaxDepth+1),
		"lone high surrogate":    `"\ud800"`,
		"lone low surrogate":     `"\udc00"`,
		"high then letter":       `"\ud800\u0041"`,
		"not UTF-8":              "\"\xff\"",
		"overlong UTF-8":         "\"\xc0\xaf\"",
		"surrogate in UTF-8":     "\"\xed\xa0\x80\"",
		"control character":      "\"\n\"",
		"leading zero":           `01`,
		"plus":                   `+1`,
		"bare point":             `1.`,
		"hexadecimal":            `0x10`,
		"integer beyond doubles": `9007199254740993`,
		"integer with a twin":    `-100000000000000000001`,
		"beyond doubles":         `1e400`,
		"NaN":                    `NaN`,
		"comma at the end":       `[1,]`,
		"comma in object":        `{"a":1,}`,
		"missing comma":          `[1 2]`,
		"missing colon":          `{"a" 1}`,
		"name not a string":      `{a:1}`,
		"single quotes":          `'a'`,
		"comment":                `{}//`,
		"byte order mark":        "\ufeff{}",
		"unknown escape":         `"\x"`,
		"short escape":           `"\u12"`,
		"signed escape":          `"\u+123"`,
		"no end":                 `{"a":`,
		"no end of string":       `"a`,
		"nul":                    "{}\x00",
	} {
		if err := strictjson.Check([]byte(text)); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: Check(%.60q) = %v, want ErrInvalid", name, text, err)
		}
	}
}

func TestAccessors(t *testing.T) {
	text := []byte(` { "a" : "x\n" , "b":[ 1, "]}" , {"c":"\"}"} ],"c": true,"d":7 ,"e":["p","q"],"f":null,"g":{ } } `)
	if err := strictjson.Check(text); err != nil {
		t.Fatal(err)
	}
	members, err := strictjson.Object(text)
	if err != nil || len(members) != 7 {
		t.Fatalf("Object = %v, %v", members, err)
	}
	if s, err := strictjson.String(members["a"]); err != nil || s != "x\n" {
		t.Errorf("String = %q, %v", s, err)
	}
	elements, err := strictjson.Array(members["b"])
	if err != nil || len(elements) != 3 || string(elements[2]) != `{"c":"\"}"}` {
		t.Errorf("Array = %s, %v", elements, err)
	}
	if b, err := strictjson.Bool(members["c"]); err != nil || !b {
		t.Errorf("Bool = %v, %v", b, err)
	}
	if n, err := strictjson.Uint(members["d"], 7); err != nil || n != 7 {
		t.Errorf("Uint = %v, %v", n, err)
	}
	if l, err := strictjson.Strings(members["e"]); err != nil || len(l) != 2 || l[1] != "q" {
		t.Errorf("Strings = %v, %v", l, err)
	}
	if !strictjson.IsNull(members["f"]) || strictjson.IsNull(members["g"]) {
		t.Error("IsNull")
	}
}

func TestAccessorsRefuseOtherTypes(t *testing.T) {
	_, objectErr := strictjson.Object([]byte(`null`))
	_, arrayErr := strictjson.Array([]byte(`{}`))
	_, stringErr := strictjson.String([]byte(`null`))
	_, stringsErr := strictjson.Strings([]byte(`["a",null]`))
	_, boolErr := strictjson.Bool([]byte(`null`))
	_, bigErr := strictjson.Uint([]byte(`8`), 7)
	_, fractionErr := strictjson.Uint([]byte(`1.0`), 7)
	for i, err := range []error{objectErr, arrayErr, stringErr, stringsErr, boolErr, bigErr, fractionErr} {
		if !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("accessor %d: %v, want ErrInvalid", i, err)
		}
	}
}

// FuzzCheck compares with encoding/json: what Check accepts is JSON, and the accessors find the same values in it.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{`{"a":[1,"\ud83d\ude00",{"b":null}]}`, `[[],{}]`, `-1.5e3`, `{"a":1,"a":1}`, `"\u0000"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if strictjson.Check(data) != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted %q", data)
		}
		members, err := strictjson.Object(data)
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil || len(want) != len(members) {
			t.Fatalf("members of %q: %d, encoding/json %d, %v", data, len(members), len(want), err)
		}
		for name, value := range want {
			if string(members[name]) != string(value) {
				t.Fatalf("member %q of %q: %s, want %s", name, data, members[name], value)
			}
		}
	})
}
