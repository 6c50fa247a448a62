// Names of objects in a store: what every store can hold, and nothing that could leave it.

import KedgeCore

/// The name of one object below the repository's prefix: components joined by "/". Ordered by its bytes.
///
/// A component has 1 to 255 of the characters A–Z a–z 0–9 . _ - and is not "." or ".."; the whole name has at most
/// 1024 bytes. So a name is also a relative path that stays where it belongs, and a URL path that needs no escapes. A
/// name can also stand for a directory: all objects whose names begin with it and "/".
package struct ObjectName: Hashable, Sendable {
    /// The name as text.
    package let text: String

    /// Nil for anything but a valid name.
    package init?(_ text: some StringProtocol) {
        guard (1...1024).contains(text.utf8.count),
            text.utf8.split(separator: slash, omittingEmptySubsequences: false).allSatisfy({ isComponent($0) })
        else { return nil }
        self.text = String(text)
    }

    /// The object or directory `component` inside this directory. Nil where that is no valid name.
    package func appending(_ component: some StringProtocol) -> ObjectName? {
        ObjectName("\(text)/\(component)")
    }

    /// The parts between the slashes.
    package var components: [Substring] { text.split(separator: "/") }

    /// What follows the last slash.
    package var lastComponent: Substring { components.last ?? "" }

    /// The directory that holds this name. Nil at the top.
    package var parent: ObjectName? {
        guard let end = text.lastIndex(of: "/") else { return nil }
        return ObjectName(text[..<end])
    }

    /// Whether this object lies below `directory`, at any depth. Everything lies below nil.
    package func isBelow(_ directory: ObjectName?) -> Bool {
        guard let directory else { return true }
        return text.utf8.count > directory.text.utf8.count + 1 && text.hasPrefix(directory.text + "/")
    }
}

extension ObjectName: Comparable {
    package static func < (left: ObjectName, right: ObjectName) -> Bool {
        // Names are ASCII, and there String's order is the order of bytes.
        left.text < right.text
    }
}

extension ObjectName: CustomStringConvertible {
    package var description: String { text }
}

extension ObjectName: ExpressibleByStringLiteral {
    /// A name that is spelled in the source and therefore valid.
    package init(stringLiteral value: String) {
        guard let name = ObjectName(value) else { preconditionFailure("\"\(value)\" is no object name") }
        self = name
    }
}

private let slash: UInt8 = 0x2F

private func isComponent(_ bytes: some BidirectionalCollection<UInt8>) -> Bool {
    guard (1...255).contains(bytes.count), !bytes.allSatisfy({ $0 == 0x2E }) || bytes.count > 2 else { return false }
    return bytes.allSatisfy { byte in
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2E, 0x5F, 0x2D: true
        default: false
        }
    }
}
