"""Who the phantoms are: patients, their images and each image's findings, drawn after the real ChestX-ray14 table.

Label sets are drawn whole, never finding by finding, so prevalences and co-occurrences are the real ones. Nothing here
renders, and no file is read: the table is embedded. Refuses a prevalence floor that the table cannot reach.

A case depends on (seed, patient, image number) and the prevalence floor alone, never on how many cases are asked for.

S = label sets, C = findings.
"""

import functools
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from hf_cxr.labels import NIH14

SPLITS = ("train", "validation", "test")

# All 112,120 rows of Data_Entry_2017_v2020.csv (Wang et al., ChestX-ray8, CVPR 2017), as counts of whole label sets
# by view: "PA images/AP images:sets with exactly these counts". A letter is a finding in the order of NIH14, A is
# Atelectasis and N is Hernia; "-" is No Finding. 801 sets, coverage 100 %.
LABEL_SETS = """
39302/21059:- 5270/4277:D 2210/2005:A 2086/1869:C 1924/781:F 1506/688:H 1367/772:E 520/1084:CD 469/881:AD 346/964:I
620/547:AC 875/251:M 746/347:B 525/367:K 481/348:DF 285/454:ACD 648/79:L 51/577:J 265/219:BC 83/358:DI 199/221:DE
291/112:CH 270/132:CE 129/269:AI 285/111:EF 42/350:DJ 135/212:DH 99/238:CI 212/125:HK 176/146:G 178/73:CM 168/82:CF
153/88:AH 124/86:DM 135/66:AF 86/115:BD 61/139:ACI 109/90:DG 28/161:CJ 144/41:DL 124/55:EH 105/73:AE 73/78:EI
118/23:FM 5/133:DGJ 39/95:CDI 93/39:EM 95/35:FH 77/51:FI 19/108:CDJ 51/75:DK 39/81:BCD 65/52:AK 80/37:AM 98/12:N
82/26:AG 39/67:CDF 21/83:ADI 90/14:AL 68/31:ACH 53/46:CDE 66/30:CK 51/37:AB 34/54:CDH 7/76:GJ 23/58:ACDI 61/18:HM
45/27:ACE 39/33:ADH 31/41:DHK 37/34:CDM 64/6:LM 43/25:ABC 34/33:ADE 36/31:DEF 38/28:EK 60/6:FL 51/14:CEF 29/36:CEI
45/14:CL 33/24:ADF 26/28:ABCD 37/17:AHK 32/22:CG 31/18:HI 6/43:IJ 5/43:AJ 35/12:ACM 34/13:CHK 10/37:DFI 28/18:IM
35/11:KM 27/18:ADM 25/19:ACDH 22/21:ACF 19/23:CDG 14/28:DEI 23/18:ACDM 22/18:ADK 17/23:BI 18/20:ACDE 34/4:CEM
14/23:ACEI 17/19:GI 5/30:ADJ 4/31:BJ 16/18:ADG 18/16:AEI 21/13:BCM 27/7:CHM 29/5:EL 11/20:ABD 27/4:CFM 18/13:DFH
5/26:DFJ 24/6:EFM 23/7:EHK 20/9:DFM 14/15:FK 12/16:CFI 3/25:FJ 16/11:ADHK 21/5:ACK 12/13:DEM 2/23:DIJ 2/22:ACDJ
15/9:AEF 12/12:CDK,EFI 21/3:CEH 14/10:IL 10/13:ACG 7/16:AHI 4/19:DEJ 16/7:HL 3/19:ACJ 5/17:BCI 15/7:BF 12/10:CDEF
9/13:CHI,DHM 12/9:ACDF 13/8:ADL 15/6:AN 2/19:CDGJ 5/15:DHI 10/10:DIM 13/7:FHK 7/13:IK 16/3:BK 1/18:CGJ 11/8:FG
10/8:ACDG 7/11:ACDK 18/0:AHM 3/15:BCJ 13/5:BE 14/4:EFH 6/12:EJ 9/8:CDFM 9/7:ACEFI,AEH 7/9:AFI 8/8:AIM 12/4:CDEM,DLM
13/3:CDL 10/6:DEK 14/2:DFL,FLM 8/7:ACEF,AEK,BCF 9/6:ACHK,DEH 12/3:ACL,CFH 2/13:AGI 4/11:CDEI 7/8:CDFI 6/9:CEJ 11/4:DN
14/1:EHM,EN 1/14:JM 9/5:BCE,BM 8/5:ACDEFI 9/4:CKM 5/8:DEFI 4/9:DGI 10/3:HKM 1/12:JK 11/2:KL 3/9:ABCDI 8/4:AFM 1/11:BDI
6/6:CDHK 6/5:ACEIM,CEFI 4/7:BCDF,EG 2/9:CIJ 8/3:CIM 5/6:DFG 10/1:EFL 9/2:GM 5/5:ABI,CDFH,CEFH 2/8:ADEI,AIK,BCDJ,CDJM
4/6:ADEM,CDIM 7/3:BCL 3/7:BDJ,HIK 9/1:CEK 8/2:CFJ,CHL,EIM 2/7:ABCI,DHL 4/5:ACDEF,ACIM,DEG 5/4:ACFI 0/9:ACIJ 6/3:AFH
6/3:BCK,DIL 3/6:BH 7/2:CDEH 1/8:CDFJ 8/1:CEFM 6/2:ADEF,ALM,DEFM 7/1:AFL,CEL,DFK 4/4:AHIK 2/6:BCDI,CDEFM 5/3:BG,CGI,CLM
1/7:DEFH 3/5:EFJ 6/1:ACDEIM,ADEL,DKM 1/6:ACHI 4/3:ADFH,BCG,BDF,EHI,HLM 5/2:AEM,BL,ILM 3/4:CDEFI 3/3:ABCDF,DGH,EFIM
4/2:ABCDM,ACDEH,BDL,DEHK,DHKM,FHI,FHM,FIL,FIM,FN 5/1:ABL,ACFH,ADHM,EFG 2/4:ACDIM,BDM,DEIM 0/6:ADGJ,AIJ,DEGJ,DGJM
1/5:HJ 2/3:ACDEI,ACDHI,AHN,BCDM,BCHK,CDHI,CDIJ,EFK 4/1:ACEM,ACIK,ADEH,AFG,CDGI,CEHM,CN,DEL,GH,GL 5/0:ACFM,ACHM,CDKM
5/0:EKM 3/2:CFK,GK 1/4:DIK 0/4:ABCE,ACDIJ,ACIL,ADFI,ADFM,ADGIJ,CEIJ,DFHK,DGHJ,DGJK,EGJ 2/2:ABCF,ABDI,ACDEIK,ACDEM,AEHK
2/2:BCDE,BDH,CGH,DGM,HKL 3/1:ABCM,ACDFH,ACN,AKM,CDEJ,CDFHM,CDGM,CEFIM,CEHI,EIK 4/0:ACEH,ACKM,ADFHK,ADHKM,EILM 1/3:ADGI
1/3:ADIK,BCDH,BDFJ,CDEIJ 1/2:ABCDE,ABJ,ACDIK,ACGI,ADEIM,ADEJ,ADHI,BGI,CDFG,CDHM,DEFL,DHLM,IKM 0/3:ABCEI,ABCJ,ACDGJ
0/3:ADFJ,AFJ,BCDGJ,BCEK,BDGJ,BEJ,BIJ,CEFJ,DEHI,DGIJ,FGJ 3/0:ABCFM,ABM,ACEKM,ADEHK,AEL,AIL,BCEF,CEG,CEIM,CFHIK,CHKM
3/0:DELM,ELM,FKM 2/1:ABG,ACDHM,ACDL,ACGH,AEFM,AFIM,BCDL,BCEFI,BCH,BCIJ,BEM,CFHM,CFLM,DFIL 0/2:ABCDEIM,ABCDIJ,ABCG
0/2:ABCIJM,ACDEJ,ACEK,ADJM,AEHI,AFIL,AGIJ,BCDFJ,BCEFJ,BCEI,CDHKM,CFGJ,DGIM,DHIK,DJM,GJM,HJK 2/0:ABCDH,ACDEFHM,ACDEL
2/0:ACDFI,ACDFM,ACEFIM,ACLM,ADEK,ADGM,ADN,AEFI,AEHM,AFHK,AFKM,AFN,AGK,AHKM,AHL,BCDHK,BCDLM,BCEH,BCEL,BCEM,BCFL,BCFM
2/0:BCN,BDE,BDEF,BFL,BHK,BN,CDN,CEHK,CFHK,CGL,DEHM,DHIM,EFLM,EHL,EIL,FHL,HN,IN,LN,MN 1/1:ABCH,ACDEFM,ACDHK,ACEIK,ACFJ
1/1:ACGHJ,ADEFI,ADEGI,ADGK,ADKM,AEG,AFK,BCHLM,BDG,BIM,CDEG,CDEGM,CDEJL,CDFL,CDGH,CDGJM,CEGI,CHJ,CJK,DEFHM,DEHIM,DEIJ
1/1:DEN,DFIJ,DFIM,GHK,HIL,JL 0/1:ABCDEFIJ,ABCDEI,ABCDEIJ,ABCDFGJ,ABCDFIM,ABCDGI,ABCDHJ,ABCDJ,ABCDJM,ABCDL,ABCEIJ,ABCIM
0/1:ABDH,ABDJ,ABEHK,ABEHL,ABIJ,ACDEFGIJM,ACDEHI,ACDEJK,ACDGI,ACDGIJ,ACDHIM,ACDJM,ACDJN,ACEIL,ACFHI,ACFHIK,ACGIJ,ACGJ
0/1:ACHIK,ADFHL,ADFJM,ADGHK,ADHIK,ADHIM,ADIJ,ADKL,AEFG,AEHIM,AEIJM,AEJ,AEJM,AEKL,AFGI,AGJ,AHIM,AJM,AMN,BCDEG,BCDEGJM
0/1:BCDEIM,BCDFI,BCDIM,BCEFIJM,BCEFIM,BCFJ,BCGJ,BCHM,BCIJM,BCIM,BCJM,BDFG,BDFH,BDIJ,BEI,BEN,BFI,BFJ,BHIK,BJM,CDEGJ
0/1:CDEHI,CDEK,CDFK,CDFKM,CDGK,CDHIM,CDIK,CDJK,CDLM,CEFG,CEFIJ,CEFKL,CEIK,CEIL,CGIJ,CGJM,CIK,CJM,DEFGJ,DEFIK,DEFIM
0/1:DEFJ,DEFJM,DEGHJ,DEGM,DFGL,DFHIKM,DFHKM,DFHM,DFJM,DGHJM,DGIJM,DHJ,DHJK,DHN,DJL,EFGH,EFGI,EGHI,EGI,EHIK,EHIM,EJM
0/1:EKL,FGI,FGIL,FHJ,FIJ,GHI,GHJ,GIK,HIJ,HIM,IJM 1/0:ABCDEH,ABCDEM,ABCDG,ABCEF,ABCEFI,ABCEIM,ABCEM,ABCFL,ABCHI,ABCL
1/0:ABCLM,ABDE,ABH,ABLM,ACDEFHI,ACDEFHILM,ACDEFIM,ACDEIL,ACDEILM,ACDFIK,ACDFIM,ACDFJM,ACDFL,ACDGH,ACDHKM,ACDILM,ACDKM
1/0:ACDN,ACEFHI,ACEFIKL,ACEFJ,ACEHIK,ACEHJ,ACEHK,ACFIL,ACHKM,ACHL,ACIJM,ACILM,ADEFHN,ADEFL,ADEG,ADEHKM,ADFHKL,ADFIM
1/0:ADFL,ADIL,ADIM,ADLM,AEFH,AEFHI,AEFHIKM,AEFHIM,AEFIM,AEGI,AEHIK,AEHKL,AEHKM,AEIKM,AEIM,AEN,AFHIM,AFHKLM,AFHM,AFJK
1/0:AFKL,AGHIJ,AGHK,AHJK,AJK,AKL,AKLM,ALN,BCDEFI,BCDEFM,BCDEI,BCDG,BCDIJ,BCDJL,BCDK,BCEHI,BCGI,BCJLN,BCKL,BDN,BEF,BFG
1/0:BHL,CDEFG,CDEFGIM,CDEFGM,CDEFH,CDEFHIM,CDEFK,CDEHM,CDEIM,CDEJK,CDEL,CDFHK,CDFHLM,CDGLM,CDHJ,CDJN,CEFHI,CEFHM
1/0:CEFILM,CEFK,CEFL,CEFLM,CEGH,CEHJ,CEHKL,CEKM,CELM,CEMN,CEN,CFG,CFHKL,CFKM,CFL,CGHJM,CGM,CGN,CHIJ,CHIK,CHIM,CHLM,CMN
1/0:DEFG,DEFJL,DEFKM,DEGJK,DEHJ,DEILM,DEJL,DEKM,DFGI,DFGJ,DFHI,DFIK,DFIKM,DFLM,DFN,DGIN,DGK,DGKM,DGL,DGN,DHKL,DKL
1/0:DKLMN,DLN,DMN,EFHI,EFHK,EFHKM,EFKM,EGHK,EHJK,EHKLM,EIN,EKLN,ELN,FGM,FHKM,KMN,KN
"""

# Patients with 1, 2, 3, ... images in the same table (30,805 patients). The 245 patients with 40 to 184 images count
# as 40, so that none of them fills a small split: the mean is 3.47 images a patient where the release has 3.64.
IMAGES_PER_PATIENT = """
17503 4113 2100 1330 938 787 608 494 387 320 281 235 165 181 121 120 91 77 77 74 68 39 50 51 45 35 38 27 25 28
17 22 20 23 24 8 11 16 11 245
"""

# Probability that a follow-up keeps the label set of the image before it; otherwise it is drawn again. The chain's
# stationary distribution is the table whatever this number. In the release Effusion follows Effusion in 49 % of the
# follow-ups and No Finding follows No Finding in 64 %; 0.35 gives 43 % and 70 %.
PERSISTENCE = 0.35

FEMALE = 0.435  # of the images in the same table
AGE_MEAN, AGE_SD, AGE_RANGE = 46.6, 16.6, (1.0, 94.0)  # years

MAX_FLOOR = 0.3
_FLOOR_TOLERANCE = 1e-6
_STREAM = 0x5EED  # keeps the cases' random numbers apart from those of the picture


class Case(NamedTuple):
    """One image to be rendered, and all that the labels' side knows of it."""

    patient: int
    image: int
    findings: tuple[str, ...]
    view: Literal["PA", "AP"]
    age: float
    sex: Literal["M", "F"]

    @property
    def patient_id(self) -> str:
        return f"synthetic_{self.patient:05d}"

    @property
    def image_id(self) -> str:
        return f"{self.patient_id}_{self.image:03d}.png"

    @property
    def labels(self) -> list[float]:
        """C floats, 1 present and 0 absent, in the order of NIH14."""
        return [float(name in self.findings) for name in NIH14]


def draw_cases(images: int, *, split: str = "train", seed: int = 0, prevalence_floor: float = 0.0) -> Iterator[Case]:
    """Draw exactly ``images`` cases of a split, patient after patient; the last patient's images are cut off.

    Patient numbers are dealt to the splits in turn (0, 3, 6, ... are training patients), so no patient is in two
    splits, and the size of one split moves nothing in another.

    Args:
        images: how many; 0 or more.
        split: "train", "validation" or "test".
        seed: any non-negative integer.
        prevalence_floor: see `label_set_weights`.

    >>> [(case.patient_id, case.image) for case in draw_cases(2, split="test")]
    [('synthetic_00002', 0), ('synthetic_00005', 0)]
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if images < 0:
        raise ValueError(f"the number of images must be 0 or more, got {images}")
    edges_S = np.cumsum(label_set_weights(prevalence_floor))
    return _cases(images, SPLITS.index(split), seed, edges_S)


def _cases(images: int, patient: int, seed: int, edges_S: np.ndarray) -> Iterator[Case]:
    while images > 0:
        for case in _patient_cases(patient, seed, edges_S):
            yield case
            images -= 1
            if images == 0:
                break
        patient += len(SPLITS)


def _patient_cases(patient: int, seed: int, edges_S: np.ndarray) -> Iterator[Case]:
    sets, views_SV = label_sets()
    rng = np.random.default_rng([seed, patient, _STREAM])
    patients_by_images = _patients_by_images()
    count = 1 + int(np.searchsorted(patients_by_images, rng.integers(patients_by_images[-1]), side="right"))
    sex = "F" if rng.random() < FEMALE else "M"
    age = float(np.clip(rng.normal(AGE_MEAN, AGE_SD), *AGE_RANGE).round())
    chosen = None
    for image in range(count):
        rng = np.random.default_rng([seed, patient, image, _STREAM])
        keep, pick, view = rng.random(3)
        if chosen is None or keep >= PERSISTENCE:
            chosen = min(int(np.searchsorted(edges_S, pick, side="right")), len(sets) - 1)
        pa, ap = views_SV[chosen]
        yield Case(patient, image, sets[chosen], "PA" if view * (pa + ap) < pa else "AP", age + image // 4, sex)


@functools.cache
def _patients_by_images() -> np.ndarray:
    """Patients with at most 1, 2, 3, ... images."""
    return np.cumsum([int(patients) for patients in IMAGES_PER_PATIENT.split()])


@functools.cache
def label_sets() -> tuple[tuple[tuple[str, ...], ...], np.ndarray]:
    """The S label sets of ChestX-ray14 and their counts (S, 2) in PA and AP views, most frequent first."""
    sets, views = [], []
    for entry in LABEL_SETS.split():
        counts, _, codes = entry.partition(":")
        for code in codes.split(","):
            sets.append(tuple(NIH14[ord(letter) - ord("A")] for letter in code if letter != "-"))
            views.append([int(count) for count in counts.split("/")])
    return tuple(sets), np.array(views)


@functools.cache
def label_set_weights(prevalence_floor: float = 0.0) -> np.ndarray:
    """Probabilities (S,) of the label sets: the real ones, or the nearest with no finding under the floor.

    Nearest is in Kullback-Leibler divergence: each finding gets one factor of 1 or more, and a set's weight is
    multiplied by the factors of its findings. The sets themselves stay those of the real table.

    Args:
        prevalence_floor: fraction of images, 0 (the real table, Hernia 0.2 %) to 0.3 (hardly a normal image left).

    Raises:
        ValueError: the floor is out of range.
    """
    if not 0 <= prevalence_floor <= MAX_FLOOR:
        raise ValueError(f"prevalence_floor is a fraction of images from 0 to {MAX_FLOOR}, got {prevalence_floor}")
    sets, views_SV = label_sets()
    member_CS = np.array([[name in findings for findings in sets] for name in NIH14])
    real_S = views_SV.sum(axis=1) / views_SV.sum()
    log_factor_C = np.zeros(len(NIH14))
    weights_S = real_S
    for _ in range(1000 if prevalence_floor else 0):
        before_C = log_factor_C.copy()
        for column, member_S in enumerate(member_CS):
            prevalence = float(weights_S[member_S].sum())
            needed = math.log(prevalence_floor * (1 - prevalence) / ((1 - prevalence_floor) * prevalence))
            log_factor_C[column] = max(0.0, log_factor_C[column] + needed)
            weights_S = real_S * np.exp(log_factor_C @ member_CS)
            weights_S /= weights_S.sum()
        if np.abs(log_factor_C - before_C).max() < _FLOOR_TOLERANCE:
            break
    assert (member_CS @ weights_S).min() >= prevalence_floor * 0.999, "did not converge"
    weights_S.setflags(write=False)
    return weights_S
