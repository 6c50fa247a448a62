// The one owner of an expat parser: a small XML document as a tree.
//
// 1. The document is untrusted. Its size, depth and number of elements are bounded; a document type, with which
//    entities are defined, is refused.
// 2. Names lose their namespace prefix, attributes and comments are left out: what object stores answer has no need.
import CExpat
package import KedgeCore

/// An element with its text and its children.
package struct XMLElement: Hashable, Sendable {
    package let name: String
    /// All text directly inside, without white space around it.
    package var text = ""
    package var children: [XMLElement] = []

    /// The first child of that name.
    package func child(_ name: String) -> XMLElement? { children.first { $0.name == name } }

    /// The text of the first child of that name.
    package func text(of name: String) -> String? { child(name)?.text }

    /// All children of that name.
    package func children(_ name: String) -> [XMLElement] { children.filter { $0.name == name } }

    /// The root element of a document. Throws `damaged` for anything that is not one small well-formed document; `what`
    /// names it in messages.
    package static func parse(_ bytes: [UInt8], what: String) throws(KedgeError) -> XMLElement {
        guard bytes.count <= maximumBytes else { throw damaged(what, "It has \(bytes.count) bytes") }
        // Object stores answer in UTF-8, whatever a document says of itself. In UTF-16, which the parser takes for what
        // it is by its first bytes alone, markup would have zero bytes.
        guard !bytes.contains(0) else { throw damaged(what, "It has a zero byte") }
        guard let parser = XML_ParserCreate("UTF-8") else {
            throw KedgeError(.defect, "could not set up a parser for XML", hint: "Free some memory and try again.")
        }
        defer { XML_ParserFree(parser) }
        let builder = XMLBuilder(parser)
        // The builder outlives the parser's work: both end in this scope.
        XML_SetUserData(parser, Unmanaged.passUnretained(builder).toOpaque())
        XML_SetElementHandler(
            parser,
            { context, name, _ in
                guard let name else { return }
                builderAt(context).start(String(cString: name))
            }, { context, _ in builderAt(context).end() })
        XML_SetCharacterDataHandler(parser) { context, text, count in
            guard let text else { return }
            builderAt(context).add(UnsafeRawBufferPointer(start: text, count: Int(count)))
        }
        XML_SetStartDoctypeDeclHandler(parser) { context, _, _, _, _ in builderAt(context).refuse() }
        let status = bytes.withUnsafeBufferPointer { buffer in
            buffer.withMemoryRebound(to: CChar.self) { XML_Parse(parser, $0.baseAddress, Int32($0.count), 1) }
        }
        guard status == XML_STATUS_OK, let root = builder.root else {
            let reason = XML_ErrorString(XML_GetErrorCode(parser)).map { String(cString: $0) } ?? "no root element"
            throw damaged(what, "Line \(XML_GetCurrentLineNumber(parser)): \(reason)")
        }
        return root
    }

    private static func damaged(_ what: String, _ reason: String) -> KedgeError {
        KedgeError(
            .damaged, "cannot read \(what)", detail: "\(reason).",
            hint: "Something other than the object store may have answered: look at the endpoint and at proxies.")
    }

    /// A listing of 1000 objects has some 400 KiB.
    private static let maximumBytes = 8 << 20
}

private func builderAt(_ context: UnsafeMutableRawPointer?) -> XMLBuilder {
    guard let context else { preconditionFailure("expat lost the context that it was given") }
    return Unmanaged<XMLBuilder>.fromOpaque(context).takeUnretainedValue()
}

/// Puts the tree together, on the thread that parses.
private final class XMLBuilder {
    private let parser: XML_Parser
    private(set) var root: XMLElement?
    /// The elements that are open, the root first, each with the bytes of its text so far.
    private var open: [(element: XMLElement, text: [UInt8])] = []
    private var count = 0

    private static let maximumDepth = 32
    private static let maximumElements = 100_000

    init(_ parser: XML_Parser) { self.parser = parser }

    func start(_ name: String) {
        count += 1
        guard open.count < XMLBuilder.maximumDepth, count <= XMLBuilder.maximumElements else { return refuse() }
        let local = name.lastIndex(of: ":").map { String(name[name.index(after: $0)...]) } ?? name
        open.append((XMLElement(name: local), []))
    }

    func end() {
        guard let closed = open.popLast() else { return }
        var element = closed.element
        element.text = String(decoding: closed.text.trimmed, as: UTF8.self)
        if open.isEmpty {
            root = element
        } else {
            open[open.count - 1].element.children.append(element)
        }
    }

    func add(_ bytes: UnsafeRawBufferPointer) {
        guard !open.isEmpty else { return }
        open[open.count - 1].text += bytes
    }

    /// Ends the parsing with an error.
    func refuse() { XML_StopParser(parser, XML_Bool(XML_FALSE)) }
}

extension [UInt8] {
    /// Without ASCII white space around it.
    fileprivate var trimmed: ArraySlice<UInt8> {
        func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }
        guard let first = firstIndex(where: { !isSpace($0) }), let last = lastIndex(where: { !isSpace($0) }) else {
            return []
        }
        return self[first...last]
    }
}
