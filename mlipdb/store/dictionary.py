"""What records of format 2 have in common, so that the compressor need not learn it in each: names and code tables.

Made by scripts/train_dictionary.py from random crystals; no real data is in it. A part of the format: it never changes.
"""

import base64

import zstandard

DICTIONARY = zstandard.ZstdCompressionDict(
    base64.b85decode(
        b"H>5D^0RR91E)Z~BV|xGq02IBYj@g(q%rL{u7^gBY_L(um3^Ry#RaI40RW$?v0BF0Vlv1XH1DHr87Ruy9F#rGrAXC@}B5i~;3?jf7KmY&$00000000000"
        b"049X0001VhlAsXX;ILG2m^<s5E8^Vh@)`KVaNyo0096100aO400;m80MEoq&VYYEs(v7%(MFL!FzmqlK}l&p=JEu5908rb1_lNO1_lcY3kwSi3kwSi4h"
        b"{|u4h|t9At50lAt50R000000000908Kpr00RO80(JlZ0000000685LM8tH|NpE5LM8tH|NnqpstEu9007!xjUoU50000000000001$3ZW#ao00000000"
        b"00007QDtSvxzeF1>*`T|v;`~kpdcm%6J`2&FP`U0y!`2z(pt^rcV2Lb>90000000000006*fcm%*`cm%*`cm!3T`~iUQ`T~IP`U0s}8wGC>B?CZseF2O"
        b"3)B!ON%mh`S`~iUQ`U232ssq4icm#m(`T_s|000#^2LZrncmx0d000000065%`2)accm!$fF$93{`T|v;`~d&}000000075X6aWAK003BWQ~&?~00000"
        b"00000004o%qW=u2ng4Lk835BN=>Gr!00000005aU`2RfGNC2ux{r_2*o&U3%3IMNV-"
        b"v0mq007r5{r>;}005NayZ@J47XSbN006XqqyGQ^0000000000000000016c5dZ)H00000002dH`v1aaA^-"
        b"pY00000002#!6#xJL0072WTIUdS99b;3>u>-"
        b"7008Q9DgZ2UyHGYZQc@TI00000002w?O+Nqt0{{X80(NC?WpZbEUvOn|Utx4_Z2)CvUvOn|Utx4_Z2)CoaAk5|VRUb8Uvgz^VR&U^0A*%haAk5|VRUb8"
        b"Uvgz^VR&U^0000000000_-q}J{Qv*|_-"
        b"q}J{Qv*|0000000000J7~aacA6N#!1P89h8?uOq0T1J+yEKC47spwFjwQhux~gZ000000000000000=yE?P000000000000000L-Lm?z-"
        b"V{`t3de!d~hHFVv`F2t3de!00000KzMxtZVwOw$0S+>z-V{`l~T<Gz-V{`z-V{`KzMxt00000t3de!t3de!fbjYPfbjYPKzMxtz-"
        b"V{`00000wuPAhKzMxtfbjYPKzMxtkbUL^RiOL<d71bGfbjYPfbjYPz-V{`z-V{`RiOL<z-V{`!Rz7!{Qc+yKzMxtfbjYPsvp4sRiOL<fbjYPz-"
        b"V{`fbjYP#pOE!v>ERL00000RiOL<a?-K`KzMxtz-V{`r&p*2KzMxt"
    )
)
