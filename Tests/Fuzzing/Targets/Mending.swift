// Makes the checksums of a changed object right again, as somebody can who writes to a repository without encryption:
// otherwise no changed byte would get past the first check.
import KedgeCodec
import KedgeCore
import OpenSSL
import XXHash

enum Mending {
    static let scope = RandomID(high: 0x0123_4567_89AB_CDEF, low: 0xFEDC_BA98_7654_3210)

    /// `object` with a header checksum and frame checksums that fit the rest, as far as frames can be told apart.
    static func mended(_ object: [UInt8], name: ScopedName) throws(KedgeError) -> [UInt8] {
        var object = object
        guard object.count >= ObjectHeader.lengthPrefix else { return object }
        let length = Int(number(object, 16))
        guard ObjectHeader.lengths.contains(length), length <= object.count else { return object }
        replace(&object, length - 4, CRC32C.checksum(Array(object[..<(length - 4)])))
        let binding = try SHA256.hash(
            Array("kedge-object".utf8) + SHA256.hash(Array(object[..<length])) + name.scope.bytes
                + Array(name.name.utf8))
        var offset = length
        let end = object.count - EndFrame.frameBytes
        while offset < end, let next = tagged(&object, at: offset, before: end, binding) { offset = next }
        if end >= length { _ = tagged(&object, at: end, before: object.count, binding) }
        return object
    }

    /// Mends the tag of the frame at `offset`. Returns where it ends.
    private static func tagged(
        _ object: inout [UInt8], at offset: Int, before end: Int, _ binding: [UInt8]
    ) -> Int? {
        guard end - offset >= FrameHeader.overhead else { return nil }
        let stored = Int(number(object, offset))
        guard stored <= end - offset - FrameHeader.overhead else { return nil }
        let payload = offset + FrameHeader.headerBytes
        var additional = [object[offset + 12]]
        additional += object[offset + 8..<offset + 12]
        additional += object[offset + 4..<offset + 8]
        let hash = ContentHash(of: binding + additional + object[payload..<payload + stored])
        var tag: [UInt8] = []
        hash.append(to: &tag)
        object.replaceSubrange(payload + stored..<payload + stored + FrameHeader.tagBytes, with: tag)
        return payload + stored + FrameHeader.tagBytes
    }

    private static func number(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
        bytes[offset..<offset + 4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    }

    static func replace(_ bytes: inout [UInt8], _ offset: Int, _ number: UInt32) {
        var little: [UInt8] = []
        little.append(littleEndian: number)
        bytes.replaceSubrange(offset..<offset + 4, with: little)
    }
}
