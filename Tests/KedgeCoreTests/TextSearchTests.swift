// That a text is found in another one exactly where its bytes are.
import KedgeCore
import Testing

@Suite struct TextSearchTests {
    @Test("a text is found at the beginning, in the middle, at the end, and nowhere else")
    func found() {
        let text = "kedge archive-push %p"
        for part in ["", "k", "kedge", "archive-push", "%p", text] {
            #expect(text.contains(part) && text[...].contains(part), "\(part)")
        }
        for part in ["K", "archive-pull", "%p ", text + "x", "pushp", "é"] {
            #expect(!text.contains(part) && !text[...].contains(part), "\(part)")
        }
        #expect("".contains("") && !"".contains("a"))
        #expect("aaab".contains("aab") && !"abab".dropFirst().contains("aba"))
        // Byte for byte: one letter is not two, even where they look the same.
        #expect(!"caf\u{E9}".contains("e\u{301}") && "caf\u{E9}".contains("\u{E9}"))
    }
}
