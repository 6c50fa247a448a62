// What an object store answers: XML, escaped keys, dates.
import Expat
import KedgeCore
import KedgeRepository

extension FuzzTarget {
    static let storeTargets: [FuzzTarget] = [
        FuzzTarget("xml", maximumLength: 8192, seeds: [listingSeed, errorSeed]) { (bytes) throws(KedgeError) in
            let root = try XMLElement.parse(bytes, what: "an answer")
            var (count, level) = (0, [root])
            var depth = 0
            while !level.isEmpty {
                depth += 1
                count += level.count
                level = level.flatMap(\.children)
            }
            require(depth <= 32 && count <= 100_000, "a document is small")
            require(root.name.utf8.count <= bytes.count && root.text.utf8.count <= 3 * bytes.count, "nothing grows")
        },
        FuzzTarget("s3-key", maximumLength: 256, seeds: [Array("main/wal/7/history%2F00000002.history".utf8)]) {
            (bytes) throws(KedgeError) in
            let text = String(decoding: bytes, as: UTF8.self)
            require(S3Escaping.unescaped(S3Escaping.text(text)) == text, "a key is read as it was escaped")
            guard let key = S3Escaping.unescaped(text) else { return }
            require(S3Escaping.unescaped(S3Escaping.text(key)) == key, "a key is read as it was escaped")
        },
        FuzzTarget("http-date", maximumLength: 64, seeds: [Array("Fri, 24 May 2013 00:00:00 GMT".utf8)]) {
            (bytes) throws(KedgeError) in
            guard let moment = HTTPDate.parse(String(decoding: bytes, as: UTF8.self)) else { return }
            require(Timestamp(record: moment.description) == moment, "a date is a moment that records can hold")
        },
    ]

    private static let listingSeed = Array(
        """
        <?xml version="1.0" encoding="UTF-8"?>
        <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><IsTruncated>true</IsTruncated>\
        <EncodingType>url</EncodingType><NextContinuationToken>t</NextContinuationToken><Contents><Key>a%2Fb</Key>\
        <LastModified>2026-11-21T02:00:00.123Z</LastModified><Size>7</Size></Contents>\
        <CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes><!-- c --><![CDATA[<x>]]>&amp;&#65;</ListBucketResult>
        """.utf8)

    private static let errorSeed = Array(
        "<Error><Code>NoSuchKey</Code><Message>m</Message><RequestId>r</RequestId><Region>eu</Region></Error>".utf8)
}
