// What object stores answer is untrusted: documents that are not small, plain and whole are refused.
import Expat
import KedgeCore
import Testing

@Suite struct XMLElementTests {
    private func parse(_ text: String) throws(KedgeError) -> XMLElement {
        try XMLElement.parse(Array(text.utf8), what: "a document")
    }

    @Test("elements, text and entities are read")
    func elements() throws {
        let root = try parse(
            "<?xml version=\"1.0\"?>\n<a:List xmlns:a=\"x\">"
                + " <Key>k &amp; <![CDATA[<y>]]></Key><Key/> <Size> 7 </Size></a:List>"
        )
        #expect(root.name == "List" && root.text == "")
        #expect(root.children("Key").map(\.text) == ["k & <y>", ""])
        #expect(root.text(of: "Size") == "7" && root.text(of: "Other") == nil)
    }

    @Test(
        "what is not one small plain document is refused",
        arguments: [
            "", "text", "<a>", "<a></b>", "<a/><b/>", "<a>&undefined;</a>", "<a>\u{0}</a>",
            "<!DOCTYPE a [<!ENTITY x \"xxxxxxxx\"><!ENTITY y \"&x;&x;&x;\">]><a>&y;</a>",
            "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>",
            String(repeating: "<a>", count: 40) + String(repeating: "</a>", count: 40),
            "<a>" + String(repeating: "<b/>", count: 100_001) + "</a>",
        ])
    func refused(_ text: String) {
        #expect(throws: KedgeError.self) { try parse(text) }
    }

    @Test("a document in another encoding is refused, with a mark of it and without, whatever it declares")
    func otherEncoding() throws {
        let utf16: [UInt8] = "<a>x</a>".utf8.flatMap { [$0, 0] }
        for bytes in [[0xFF, 0xFE] + utf16, utf16, Array("<a>".utf8) + [0xE4] + Array("</a>".utf8)] {
            #expect(throws: KedgeError.self) { try XMLElement.parse(bytes, what: "a document") }
        }
        let declared = "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?><a>\u{E4}</a>"
        #expect(try parse(declared).text == "\u{E4}")
    }

    @Test("a document of many megabytes is refused before it is read")
    func tooLong() {
        #expect(throws: KedgeError.self) {
            try XMLElement.parse([UInt8](repeating: 0x20, count: 9 << 20), what: "a document")
        }
    }
}
