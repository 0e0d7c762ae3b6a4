"""Tables of RFC 6330 for blocks of up to 2,097,152 bytes: random numbers (5.5) and code parameters (5.6)."""

from __future__ import annotations

import base64
import struct
from typing import Final

_V: Final = """
4*F&Q>ykvz$n3u)@|o3u2VQrF$Gzf<zu6kecjq~?E-Qi3k2mE-JKbzjZRl#T8IW82-%Nc_Uf8Rcw$AlCRd2?>9twkcc_-
!#%g(Lnr#oNfxa)3u;{&y_l^Y!U?J3`-
4ysix?`;7)Cb~@cb+_vDo(DQ6jEj)LDH@6RDymt;qDiO*3vj}8(!0Tv!&6zYSEUkV;7ni!z^bSp2T(<8>9cm#E}$eM7A_v%vW-i1dG6v5iw-
R|?!6PI4F`k!%aWJR`pXlBGgF-B+awk>nc*-9#cX*%D4NJ45>X*?^&ixPMF(LHDn<1gqF)t}`e(O0`%0Pd@l^BUw6l5zamrOv9(4mrQ7NH%2ecUTyG-aqn
Jlj}w9Ei5V$|PuH;&vcb|+YUvCcaavqfqm&4uScD8Vs8E@R!vQ)KjQbC~nIWZaH}=8=!URLMnhBU$7cZ~on>mXs^iUfu4C?U(fi>`TazprYvibHP<>8BZy
nP)xMLpBQsQks4$YmvN7qQhz#-^~l&8TG3p}p>PeMK4f)~gy;OQO4Ld;`zK{_TCL2RwNBX~849kx0HW(-9=pj1&J|7WejMJ~q9M;-
!9~d0GV8qD8DrSv6Kl@CYZ=B|lFENub<xDyQ}&;+Nj^o8>3iXm54-
lonwdu#lTv5J|H$1xCdyCjM+P8^wU*X5lLSPAm%yHCImA{pcwEsqhcFfaMY75)!MeH$>^?N1n4$%#HcyH?Em?@E)W1{}pez+37Q&;+o6FlYq>{K&R?_{?G
_4!k#ANvXU!*%Pc2#C3Jb4~3qHC3Rwu(^`xv!ah2u8gy_xhvF#sy$%dr~hFh4uah+PHtZUE<VlF<QH*-
f_}f%lG=!$n34b?$AbKAZhA+N*HpB>LxWJreX{A^F$QbhwQJFG|6qrB)(7qz7jFarMX0Ai+RfLNC#6G4`wt~<ie}Kd#)j>zm$Vq#O*zvG=L<;P|R_q3|bl
dkV=Md6=b|<U}^aX!wEX3X_2bqsb?AbXkk?NRI@dPCp{gB3z0Ri!8L}p0!?4+5&l5K`0CxO5xAnFe{4m8S(UgA+O|G!-
aHFz4g7@ygYdJ7qW?!!Lsl+^z5F&`s%x5a!@`lf<E?2t)C-
Kw8t)FQXTKFu)+SypW#iKc+_nts(weEDVcEe+3b3m3jpN#|>YW%s+o+5Tydai1ZiT+ps*x=_y;nWrF~Qj46TlA79^K<NvulVn?<@|{geRKo-
|lB2w{*hZdVIY9x2qR9=r0kRL<7V}jiTMXoRdjUm_@AQ7wT7iR|c2@C~CcMKYDl(I29z=W4;0`ABGrrW)o(1*jSsCQ1&3VFdw-
^dB)Pm#^S={O`MMDhtSMBAU`|oWN2wF7B?5x(HpJZX=c%tOSz0(n<o?=dM7Ih=kjh_fKy_5^+G~XHjIlF-_3-
cDZtkfe+>hPP6S+54Pc~Z@=<b!*x{nsWEo?a%!VvVY7%*ow&j7IRN;9wJ((;J@oXlw#MB$H84=nws`&&X5|jX{4{*X4@zbj9UFI@S_ilhm29ifOvpFIG|L
oHh(6H}(JA7ih9m0s`N8PV>vZbPdCM*7xwQ{+a9Rg3kpd#X4j=7QnmQ8xC0{Ynl<sAzv`e)4S7|J=80VZ-uk24Tge_`34XY|knB9W5Cd2~alGRq?>pVIk3
K58j`vA|sLHbL0#`I%VAnqEiXI{C`C#6y4x9xdM=3VpTmZ!p*3oFBO;A*!7McLmb56hB|N@~5P<*R=~keb_KQK{RerIT@HpH7fu>Zi@GIZ>jDll<dSepp}
o~a^T*gVqtqx3ig<Hwt4RHdpXlY4W+RJ=(GD~Um*1<Y9m;@lF*;)5>UQ3!2aY1<){j$j`=8t-@}|JA09Xl2)QX*^sEUuw2?Q=(^i>}6Uu`AIyNdTx-
7OwwMblqhL=Dhe}qmn!B!Amz)Yg;+Wg#{px;_O&E0r*bp%fu(KI6+jFXeXEQ?;SbgIQfL2IZokuAzT=DJw%aFtPIt+8sA_z0r_OX4d3!s5~#+iVs17?#g$
MCYy@<KDpvKbWtH)_N(mb@@`!d+U0KM>_NsKjk*{p|W2K$y9OUf-itKEW#Ynnjafi{ZK<7Z94HMM-
U`HIBo?V0o;n<y)}Gm(~m6hVdZ}4af#8=GhZ~E!(XN_{#In3x+4+=C%DlaCS{Ap4S&6Z5?Fp`M@t`{zCBt$E~#QYU*F-
SZXt6F@{_jQ>Q<}amX_mVEwyg*ei5Jm{o!@6#v5X6A>z)l-nauxYfcNI?<ql>02|cq0jlw)c%fL{Gt-zz8M6SQJrzW^Zhy@C%0)-NS#s-sv-
x_+P>1ttxR-SQwBXw8m#cgBNnWv6$Y+uc35hJ39ZeGD?hUE-
+jOXgHQT;R(zM0MYevygE)vaEHD$?2aWMXK`IUC`1`;zc4g7k`y}G1vz9b}!A5+KWOtXnO8!H_~Z)tLeHvZ!h=N#i!%l(dmR82Y`b$jR#wtrNnF@Zzas6r
hz3G}&UKvG;}`tfgr)-?dE8I<<A7A>>>Y79U+#cTg(3@#s}8uw?wrtI4;-h#O_NuAucX*i>Vy*h|A;7YwKy%0`#8d}!63(}J|0=)-
qPV4k1toHynD0Y<y<2nEH0WdZ-Lc5mz*!S5|(^{PveOPrCsFMlS*2gbr_IK96VI?~R5Z5@6rjhoZ9heW^vOiMVw+AsBnTixI^b!svrE)HU^C#|L3Vr-
Fh2rdw-gO@@g7GRtP3Cr<_?%3P@WY0YzfYG9$>}5w5qHWx+AEpIo!kH%mf|wY(%-
>!E*QfT`E68<Yl;TV$AKAh&tnwN?5RUOaKVRSjU?X!(%Vo|u=&FZ{45NvF_q#EuKiWB54^=32Q(1_zQG$j6)&n6h~CxpU0cWKXz6HB0WwXc%tdpAs^X)tj
GUx(c(>Q{X50$i$8kOGpkc4C1@jK{{X0b|hE=dq!zX(NBc&mD#H|5yAuPHQ^`aZVtgG(t*T%DCHokp*!LHZNg#fUw;;~d;+5&_6nop-
44sf9YX3>Uoc*xa80?ELnt3u0rt^l1zy=!Rua$k3tmJ?}7ZoChVz{cz%9FkjC3+~ihrvgmzV5w_49N6c_89pKP+vm4nZbwv2$VBOQ&N$e5GAJ24)X|x5H*
&!oT|lvkl~E(@BV`F|LXC;AFw?HEyBj&JR81QQKqvNF9*U`j3YcUVWn>^ag@3AJ9<>7|uJFBg<HbrWQVa@{p!ym&IiUm(J{gWrDyu3<3OY>zU&)N2NhT#w
*<#{mRDL{V^P97ug`KyU`TcO<RmKU90XRc02O<5pczN&;m=P`JQdpew^II+Z9kHAJ5|KU=)o@f@tTgQB2!XpsNpYpJ$P$}2u|PKmSDe{=X97|9RAWoc0{o
&Iy2Kan^41W`p^uS6pzr^Fl7463o4nf+;Sf|ylP;@Fn3%1hv=F}$WYo<6`+^5pWS7-wJgh)giHp<G75Wz>!>xIw47E$$_h*Q4%{xA*siYCq^vN^4{-
`~ZgBWg<-
7A)19jHAk5dPg{Et#H)Hk@nC%FpU|r3g&zX0Vq@$=Fi@9TgG1)Vl}2%pPUL4Eq+<jC=<d!Q3Kd2&OXjpnalBl2CX5O?0v9^_Aw|e1ceJH<8uJRs47}ILA`
n(JAo0Ea!jTGVN{-ba-L3p?39(@j#3owYuvpV`LtYFa6zVMs)FD{y!2N`#e7v$tIN_7DK1{l1RrAjash#*`F+-
oG2>^VsxDDT$;r#NhxuvDfD=l+*ZYNm?SLIogCK1HCmf=!}pV9xVDu(I|FAn;Zrnfh>M030(`xcbTmFZh$40UJ<f{yWd-hI07`i{8^)PNq|^Bm#m^-
cOMIQF>7WEE(^9vWoRs~<-!n<dWh8w)!NG$e_UK0}HkA_-
#WRSlOxhSUuVcvzMXw|~$2MH(DWfsIP}7VKk1E3D25WPW+@^5DHQ?Km*;;CeGF<I~bL7CM=1yBYucR?Yb&%@)WxkfR0my+H(0V0^M*`efEM`!fmtomUzlC
dM!`)EQM~_1tlG3njEdH>*Dwwv0bx^A;*hYJAOeY9fSp#*J6}Fz;dW1k|=|af3uBbK%HOnA(>~vytdXuorDM1=03mgdHF{BKVGe2=?OnToQhD_Szvjt@ZX
s2(Wg?T*2{*xu(f;uEsE!llMN_D@YM<3VKo{i9!CQ}z3WRB~4qJ0!b8k><}^|O<1;L0&l0zSb&3w?zF)lR8vbYnJ{?aVq5w(W0vtm0ih@gAV?wm6&fWpob
n^<IfA)g55~pJH0gQ~i-czoK@9RYxZsm#OmDJzebVZk<Wv{tL#lZidKVtwAV}!(Y)2rYPZRrXy7exfvYNlcgglES4#)K;N9>U<nBI3<<gA-
$bVj+13l4<8@*!>1G|qn8!~7MrP-K0r~U9-
RU!>;p*|a<Zc7xuxKsW7CHlDOtKO~b1tqs+co@El27Z7q+yKJe=@5trL;Toz9`pX;091S*d=9aLd`D2V8!#DQr9nbq7*5owH<zI8<P9>4}&S~-
0En=m}MGxt5NDGl_!-p`%e`rpYiDofkB&>)JREZC(=~zD2_y`-XPXG`7c~;#>%USI4ABXp`(yZdcA0b{y|(8zW&@E4dE6LG>-
+DhMF;qdCttx;0mdZ*L}MUe|!?LP>If2u0#R3%FV=KeSMk%i{R-
G9l_xX%eXN1jR+IYmy~;#Z2f!EyRAyJ<+Yu|QCL2agDcdVpi;O<4c`dy^01F)pF;xI(tREGNJ^)zGrM(f-tCKza-icS!12qWxY1vy!IoUGHVexp@j@5>?%
6Ul&|D^oMbKpqsRb2ZVQF<OxvjW`h<vvahC!)=I8nLb7ArwBVoKpfgQU~OmUY@al+K~_p7+7%O7yeJ%A5CPzHT?yVe$aq6mV(rH5>UwyOB)`;o4GGH}$SW
Zi=PXee8+iuz0=<Nz;~cgK_D5V_6#xmN-_n$N<G&iM<@wyZr&_qpH{6M~S7Dw9!C+iOBnRK6x%}`n^r4`r`1VooTcOeDpx!^<w1_*lh26^reLDZn=L);*d
I28j^Wdwjq}AHH6nEz{3e=PXTh0vB7&4V1P=yq9BKuG{JuA&%DP=vCs~s=j<LdAd^OfTHP3>ot+lJfmptPu>i>&IZA&XKznYYJ<pjl#0qELiu<WOB?0|o5
)cqx?b80KT_wdB%X4;Mdc(UJs8DiHC^doQl6;&n^8QyGk>!LiUSF8JB}z~Jw^$+f6r3kUWNus`G-vU_%+LCyTD%Lx;-
)sqR>=;KaUO2Ru?N>_QfP0S<FP_LK0vjHBz`-$#~Y`+fG@+4%7dpq)d5;K%#>XC
"""


def _unpack() -> tuple[tuple[int, ...], ...]:
    raw = base64.b85decode("".join(_V.split()))
    return tuple(struct.unpack_from(">256I", raw, 1024 * number) for number in range(4))


V0, V1, V2, V3 = _unpack()
"""Section 5.5: four arrays of 256 random 32-bit numbers."""

PARAMETERS: Final = (
    (10, 254, 7, 10, 17),
    (12, 630, 7, 10, 19),
    (18, 682, 11, 10, 29),
    (20, 293, 11, 10, 31),
    (26, 80, 11, 10, 37),
    (30, 566, 11, 10, 41),
    (32, 860, 11, 10, 43),
    (36, 267, 11, 10, 47),
    (42, 822, 11, 10, 53),
    (46, 506, 13, 10, 59),
    (48, 589, 13, 10, 61),
    (49, 87, 13, 10, 61),
    (55, 520, 13, 10, 67),
    (60, 159, 13, 10, 71),
    (62, 235, 13, 10, 73),
    (69, 157, 13, 10, 79),
    (75, 502, 17, 10, 89),
    (84, 334, 17, 10, 97),
    (88, 583, 17, 10, 101),
    (91, 66, 17, 10, 103),
    (95, 352, 17, 10, 107),
    (97, 365, 17, 10, 109),
    (101, 562, 17, 10, 113),
    (114, 5, 19, 10, 127),
    (119, 603, 19, 10, 131),
    (125, 721, 19, 10, 137),
    (127, 28, 19, 10, 139),
    (138, 660, 19, 10, 149),
    (140, 829, 19, 10, 151),
    (149, 900, 23, 10, 163),
    (153, 930, 23, 10, 167),
    (160, 814, 23, 10, 173),
    (166, 661, 23, 10, 179),
    (168, 693, 23, 10, 181),
    (179, 780, 23, 10, 191),
    (181, 605, 23, 10, 193),
    (185, 551, 23, 10, 197),
    (187, 777, 23, 10, 199),
    (200, 491, 23, 10, 211),
    (213, 396, 23, 10, 223),
    (217, 764, 29, 10, 233),
    (225, 843, 29, 10, 241),
    (236, 646, 29, 10, 251),
    (242, 557, 29, 10, 257),
    (248, 608, 29, 10, 263),
    (257, 265, 29, 10, 271),
    (263, 505, 29, 10, 277),
    (269, 722, 29, 10, 283),
    (280, 263, 29, 10, 293),
    (295, 999, 29, 10, 307),
    (301, 874, 29, 10, 313),
    (305, 160, 29, 10, 317),
    (324, 575, 31, 10, 337),
    (337, 210, 31, 10, 349),
    (341, 513, 31, 10, 353),
    (347, 503, 31, 10, 359),
    (355, 558, 31, 10, 367),
    (362, 932, 31, 10, 373),
    (368, 404, 31, 10, 379),
    (372, 520, 37, 10, 389),
    (380, 846, 37, 10, 397),
    (385, 485, 37, 10, 401),
    (393, 728, 37, 10, 409),
    (405, 554, 37, 10, 421),
    (418, 471, 37, 10, 433),
    (428, 641, 37, 10, 443),
    (434, 732, 37, 10, 449),
    (447, 193, 37, 10, 461),
    (453, 934, 37, 10, 467),
    (466, 864, 37, 10, 479),
    (478, 790, 37, 10, 491),
    (486, 912, 37, 10, 499),
    (491, 617, 37, 10, 503),
    (497, 587, 37, 10, 509),
    (511, 800, 37, 10, 523),
    (526, 923, 41, 10, 541),
    (532, 998, 41, 10, 547),
    (542, 92, 41, 10, 557),
    (549, 497, 41, 10, 563),
    (557, 559, 41, 10, 571),
    (563, 667, 41, 10, 577),
    (573, 912, 41, 10, 587),
    (580, 262, 41, 10, 593),
    (588, 152, 41, 10, 601),
    (594, 526, 41, 10, 607),
    (600, 268, 41, 10, 613),
    (606, 212, 41, 10, 619),
    (619, 45, 41, 10, 631),
    (633, 898, 43, 10, 647),
    (640, 527, 43, 10, 653),
    (648, 558, 43, 10, 661),
    (666, 460, 47, 10, 683),
    (675, 5, 47, 10, 691),
    (685, 895, 47, 10, 701),
    (693, 996, 47, 10, 709),
    (703, 282, 47, 10, 719),
    (718, 513, 47, 10, 733),
    (728, 865, 47, 10, 743),
    (736, 870, 47, 10, 751),
    (747, 239, 47, 10, 761),
    (759, 452, 47, 10, 773),
    (778, 862, 53, 10, 797),
    (792, 852, 53, 10, 811),
    (802, 643, 53, 10, 821),
    (811, 543, 53, 10, 829),
    (821, 447, 53, 10, 839),
    (835, 321, 53, 10, 853),
    (845, 287, 53, 10, 863),
    (860, 12, 53, 10, 877),
    (870, 251, 53, 10, 887),
    (891, 30, 53, 10, 907),
    (903, 621, 53, 10, 919),
    (913, 555, 53, 10, 929),
    (926, 127, 53, 10, 941),
    (938, 400, 53, 10, 953),
    (950, 91, 59, 10, 971),
    (963, 916, 59, 10, 983),
    (977, 935, 59, 10, 997),
    (989, 691, 59, 10, 1009),
    (1002, 299, 59, 10, 1021),
    (1020, 282, 59, 10, 1039),
    (1032, 824, 59, 10, 1051),
    (1050, 536, 59, 11, 1069),
    (1074, 596, 59, 11, 1093),
    (1085, 28, 59, 11, 1103),
    (1099, 947, 59, 11, 1117),
    (1111, 162, 59, 11, 1129),
    (1136, 536, 59, 11, 1153),
    (1152, 1000, 61, 11, 1171),
    (1169, 251, 61, 11, 1187),
    (1183, 673, 61, 11, 1201),
    (1205, 559, 61, 11, 1223),
    (1220, 923, 61, 11, 1237),
    (1236, 81, 67, 11, 1259),
    (1255, 478, 67, 11, 1277),
    (1269, 198, 67, 11, 1291),
    (1285, 137, 67, 11, 1307),
    (1306, 75, 67, 11, 1327),
    (1347, 29, 67, 11, 1367),
    (1361, 231, 67, 11, 1381),
    (1389, 532, 67, 11, 1409),
    (1404, 58, 67, 11, 1423),
    (1420, 60, 67, 11, 1439),
    (1436, 964, 71, 11, 1459),
    (1461, 624, 71, 11, 1483),
    (1477, 502, 71, 11, 1499),
    (1502, 636, 71, 11, 1523),
    (1522, 986, 71, 11, 1543),
    (1539, 950, 71, 11, 1559),
    (1561, 735, 73, 11, 1583),
    (1579, 866, 73, 11, 1601),
    (1600, 203, 73, 11, 1621),
    (1616, 83, 73, 11, 1637),
    (1649, 14, 73, 11, 1669),
    (1673, 522, 79, 11, 1699),
    (1698, 226, 79, 11, 1723),
    (1716, 282, 79, 11, 1741),
    (1734, 88, 79, 11, 1759),
    (1759, 636, 79, 11, 1783),
    (1777, 860, 79, 11, 1801),
    (1800, 324, 79, 11, 1823),
    (1824, 424, 79, 11, 1847),
    (1844, 999, 79, 11, 1867),
    (1863, 682, 83, 11, 1889),
    (1887, 814, 83, 11, 1913),
    (1906, 979, 83, 11, 1931),
    (1926, 538, 83, 11, 1951),
    (1954, 278, 83, 11, 1979),
    (1979, 580, 83, 11, 2003),
    (2005, 773, 83, 11, 2029),
    (2040, 911, 89, 11, 2069),
    (2070, 506, 89, 11, 2099),
    (2103, 628, 89, 11, 2131),
    (2125, 282, 89, 11, 2153),
    (2152, 309, 89, 11, 2179),
    (2195, 858, 89, 11, 2221),
    (2217, 442, 89, 11, 2243),
    (2247, 654, 89, 11, 2273),
    (2278, 82, 97, 11, 2311),
    (2315, 428, 97, 11, 2347),
    (2339, 442, 97, 11, 2371),
    (2367, 283, 97, 11, 2399),
    (2392, 538, 97, 11, 2423),
    (2416, 189, 97, 11, 2447),
    (2447, 438, 97, 11, 2477),
    (2473, 912, 97, 11, 2503),
    (2502, 1, 97, 11, 2531),
    (2528, 167, 97, 11, 2557),
    (2565, 272, 97, 11, 2593),
    (2601, 209, 101, 11, 2633),
    (2640, 927, 101, 11, 2671),
    (2668, 386, 101, 11, 2699),
    (2701, 653, 101, 11, 2731),
    (2737, 669, 101, 11, 2767),
)
"""Section 5.6, table 2: (K', J, S, H, W)."""
