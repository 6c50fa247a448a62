// Which names are valid: none may leave the repository or mean two things.
import KedgeRepository
import Testing

@Suite struct ObjectNameTests {
    @Test(
        "names of allowed characters are valid",
        arguments: ["a", "kedge.json", "a/b-c/d_e.f", "...", "A0/..b", String(repeating: "x", count: 255)])
    func valid(_ text: String) {
        #expect(ObjectName(text)?.text == text)
    }

    @Test(
        "all other names are refused",
        arguments: [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a b", "a\0", "ä", "a~b", "a+b", "a\\b",
            "a\nb",
            String(repeating: "x", count: 256), String(repeating: "x/", count: 512) + "x",
        ])
    func invalid(_ text: String) {
        #expect(ObjectName(text) == nil)
    }

    @Test("a name knows its parts and its place")
    func parts() {
        let name: ObjectName = "a/b/c"
        #expect(name.parent == "a/b" && name.parent?.parent == "a" && name.parent?.parent?.parent == nil)
        #expect(name.lastComponent == "c")
        #expect(name.isBelow("a") && name.isBelow("a/b") && name.isBelow(nil))
        #expect(!name.isBelow("a/b/c") && !name.isBelow("b"))
        #expect(!("ab/c" as ObjectName).isBelow("a"))
        #expect(name.appending("..") == nil && name.appending("d/e") == "a/b/c/d/e")
    }

    @Test("names are ordered by their bytes")
    func order() {
        let names: [ObjectName] = ["a/b", "a-b", "B", "a.b", "a0", "a"]
        #expect(names.sorted() == ["B", "a", "a-b", "a.b", "a/b", "a0"])
    }
}
